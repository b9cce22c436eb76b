"""What a chart writes: a table of what is in view, and a picture drawn from that."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmplay_tui.chart.data import ChartData, Curve
from lmplay_tui.chart.draw_png import main as draw_png
from lmplay_tui.chart.view import View
from lmplay_tui.services.chart_files import write_chart

_LOSS = np.array([4.0, np.nan, 2.0, 2.0])
_DATA = ChartData(
    curves=(
        Curve(name="train", x=np.arange(1.0, 5.0), y=_LOSS),
        Curve(name="validation", x=np.array([2.0, 4.0]), y=np.array([5.0, 3.0]), series=1, kind="points"),
    ),
    x_name="time",
)


def test_a_chart_is_written_as_what_is_in_view_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")  # no picture
    view = View(span=2.0, x_window=(1.0, 3.5))
    told = [asyncio.run(write_chart(_DATA, view, "run-loss/x", tmp_path)) for _ in range(2)]
    first, second = tmp_path / "run-loss_x.csv", tmp_path / "run-loss_x-2.csv"
    assert told == [f"written: {first}; no picture: failed", f"written: {second}; no picture: failed"]
    with first.open(encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["curve", "time", "value", "smoothed"]
    assert [row[:3] for row in rows] == [
        ["train", "1", "4"],
        ["train", "2", "nan"],
        ["train", "3", "2"],
        ["validation", "2", "5"],
    ]
    smoothed = [row[3] for row in rows]
    assert float(smoothed[0]) == 4.0
    assert 2.0 < float(smoothed[2]) < 4.0
    assert smoothed[3] == ""  # of validations each one counts
    assert first.read_text() == second.read_text()


def test_the_picture_is_drawn_from_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("sys.executable", "/bin/false")
    asyncio.run(write_chart(_DATA, View(span=2.0), "loss", tmp_path))
    pictures = []
    for more in ([], ["--log-x", "--log-y", "--y", "1", "10"]):
        assert draw_png([str(tmp_path / "loss.csv"), str(tmp_path / "loss.png"), "--title", "loss", *more]) == 0
        pictures.append(np.asarray(Image.open(tmp_path / "loss.png").convert("RGB")))
    for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):  # matplotlib's first two
        assert (np.abs(pictures[0].astype(int) - colour).sum(axis=2) < 12).any()
    assert not np.array_equal(*pictures)
