"""What a chart shows as files: a table, and a picture drawn by matplotlib in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from lmplay_tui.chart.data import ChartData
from lmplay_tui.chart.export import to_csv
from lmplay_tui.chart.view import View


async def write_chart(data: ChartData, view: View, name: str, folder: Path) -> str:
    """Write `name.csv` and, where matplotlib is there, `name.png`; returns what to say of it. Raises `OSError`.

    What was written before stays: the next one is `name-2`.
    """
    table = _free(folder, "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name))
    picture = table.with_suffix(".png")
    text = await asyncio.to_thread(to_csv, data, view)
    await asyncio.to_thread(table.write_text, text, encoding="utf-8")
    asked = [str(table), str(picture), "--title", name, *_scales(view)]
    drawing = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lmplay_tui.chart.draw_png", *asked, stderr=PIPE
    )
    _, complaint = await drawing.communicate()
    if drawing.returncode == 0:
        return f"written: {table} and {picture.name}"
    lines = complaint.decode(errors="replace").strip().splitlines()
    return f"written: {table}; no picture: {lines[-1] if lines else 'failed'}"


def _free(folder: Path, name: str) -> Path:
    """Where a table of that name overwrites neither a table nor a picture."""
    tables = (folder / f"{name}{f'-{number}' if number > 1 else ''}.csv" for number in itertools.count(1))
    return next(table for table in tables if not (table.exists() or table.with_suffix(".png").exists()))


def _scales(view: View) -> list[str]:
    """How the axes of the picture are to be, as arguments."""
    found = ["--log-x"] * view.log_x + ["--log-y"] * view.log_y
    if view.y_window is not None:
        found += ["--y", *map(str, view.y_window)]
    return found
