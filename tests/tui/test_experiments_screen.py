"""The experiments screen: filtering, layers, memory of a mini-batch, checks that come in live, broken ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from lmplay_tui.app import Workbench
from lmplay_tui.services.commands import CommandError
from lmplay_tui.views.experiments import check_rows, gradient_rows
from lmplay_tui.widgets.grid import Grid
from tests.tui.support import FakeCommands, description_of, drive, make_app, stream_of, text_of, until, until_text

CHECKED = [
    {"name": "gradients", "ok": True, "skipped": False, "evidence": "29 parameters", "cause": None},
    {
        "name": "causality",
        "ok": False,
        "skipped": False,
        "evidence": "logits at 3 moved with token 7",
        "cause": "a mask that is missing",
    },
]
GRADIENTS = [
    {"name": f"blocks.{block}.attn.weight", "shape": [4, 4], "status": "ok", "grad_norm": norm, "ratio": 0.1}
    for block, norm in enumerate((1.0, 1e-2, 1e-9))
] + [{"name": "fc.bias", "shape": [4], "status": "none", "grad_norm": None, "ratio": None}]


def memory_of(name: str, *arguments: str) -> dict[str, Any]:
    """The description, with the memory for the mini-batch that was asked for."""
    told = description_of(name)
    rows = int(arguments[arguments.index("--mini-batch-size") + 1])
    return {**told, "memory": {**told["memory"], "mini_batch_size": rows, "total": rows * 1e9}}


def test_an_experiment_from_the_filter_to_its_checks(tmp_path: Path) -> None:
    report = {"experiment": "gpt2ish_med", "ok": False, "checks": CHECKED, "gradients": GRADIENTS}
    commands = FakeCommands({"check": stream_of([*CHECKED, report]), "describe": memory_of})

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        names = app.screen.query_one("#experiments", Grid)
        await until(pilot, lambda: len(names.rows) == 4, what="all experiments")
        # The sizes of all come in without one looking at each.
        await until(pilot, lambda: text_of(app).count("28,000") + text_of(app).count("28.0k") >= 3, what="their sizes")
        await pilot.press("slash", *"med", "enter")
        await until(pilot, lambda: [row.key for row in names.rows] == ["gpt2ish_med"], what="the filtered list")
        await until_text(pilot, "for 4 rows")
        await pilot.press("M")
        await until_text(pilot, "for 8 rows")
        await pilot.press("v")
        await until_text(pilot, "Block x 6")
        await pilot.press("left_square_bracket", "left_square_bracket")
        await until(pilot, lambda: "Block x 6" not in text_of(app), what="fewer levels")
        await pilot.press("c")
        await until_text(pilot, "1 failed")
        assert "likely: a mask that is missing" in " ".join(text_of(app).split())
        await pilot.press("v")
        await until_text(pilot, "blocks.2")
        assert ("check", "gpt2ish_med", "--tiny", "--json", "--stream") in commands.asked
        commands.answers["check"] = CommandError("ended by SIGKILL")
        await pilot.press("c")
        await until_text(pilot, "could not be checked: ended by SIGKILL")
        await pilot.press("slash", "escape")
        await until(pilot, lambda: len(names.rows) == 4, what="all experiments again")
        await pilot.press("end")
        await until_text(pilot, "'Blok' is not defined")

    drive(make_app(tmp_path, commands=commands), do, size=(110, 40))


def test_a_new_experiment_is_copied_and_opened_in_the_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        edited: list[Path] = []
        monkeypatch.setattr(app, "edit", edited.append)  # a test has no terminal to hand over
        await pilot.press("n")
        await until_text(pilot, "A copy of gpt2ish")
        await pilot.press(*"test_runner", "enter")  # a name whose folder is there
        await until(pilot, lambda: bool(edited), what="the editor")
        assert ("new", "test_runner", "--from", "gpt2ish") in commands.asked
        assert edited[0].name == "model.py"
        assert edited[0].is_file()

    commands = FakeCommands({"new": "made"})
    drive(make_app(tmp_path, commands=commands), do)


def test_an_editor_that_is_not_there_leaves_the_screen_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The screen stepped aside for an editor that could not be started, and never came back."""
    monkeypatch.setenv("VISUAL", str(tmp_path / "no-such-editor"))
    suspended: list[str] = []

    @contextmanager
    def suspend() -> Iterator[None]:
        suspended.append("left")
        yield
        suspended.append("came back")

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        monkeypatch.setattr(app, "suspend", suspend)
        app.edit(tmp_path / "model.py")
        await until_text(pilot, "No such file")
        assert suspended == ["left", "came back"]

    drive(make_app(tmp_path), do)


def test_evidence_stands_beside_the_check_or_below_it_where_that_is_narrow() -> None:
    results: dict[str, Any] = {one["name"]: one for one in CHECKED}
    wide = check_rows(results, "cache", 110)
    assert ["".join(text for text, _ in cell) for cell in wide[1].cells] == [
        "FAIL",
        "causality",
        CHECKED[1]["evidence"],
    ]
    narrow = check_rows(results, "cache", 50)
    below = [row for row in narrow if row.heading and row.key.startswith("causality")]
    assert "".join(text for row in below for text, _ in row.cells[0]).split() == [
        *str(CHECKED[1]["evidence"]).split(),
        *["likely:", "a", "mask", "that", "is", "missing"],
    ]
    assert len({row.key for row in narrow}) == len(narrow)


def test_gradients_are_summed_by_block_on_a_logarithmic_scale() -> None:
    bars = {
        row.key: sum(text.count("━") for text, _ in row.cells[0]) for row in gradient_rows(GRADIENTS) if row.heading
    }
    assert bars["block:blocks.0"] > bars["block:blocks.1"] > bars["block:blocks.2"] == 0
    assert bars["block:blocks.1"] == pytest.approx(bars["block:blocks.0"] / 2, abs=1)  # two decades of four
