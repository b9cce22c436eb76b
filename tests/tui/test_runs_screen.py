"""The list of runs: what is done with one of them, and what the list keeps meanwhile."""

from __future__ import annotations

import asyncio
import errno
import shutil
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from lmplay.runs.labels import read_labels
from lmplay.runs.queue import Queue
from lmplay_tui.app import Workbench
from lmplay_tui.dialogs.asking import TextDialog
from lmplay_tui.screens.runs import RunsScreen
from lmplay_tui.services import clipboard
from lmplay_tui.state import state_folder
from lmplay_tui.widgets.fields import Field
from lmplay_tui.widgets.grid import Grid
from tests.tui.support import drive, make_app, plant_live_run, plant_run, text_of, until, until_text


async def retype(pilot: Pilot[None], app: Workbench, text: str) -> None:
    app.screen.query_one(Field).value = text
    await pilot.press("enter")


def test_a_renamed_run_keeps_its_marks_and_mistakes_are_mended_in_the_dialog(tmp_path: Path) -> None:
    for order, name in enumerate(("first", "second")):
        plant_run(tmp_path / "runs", name, steps=3, order=order)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "first")
        await pilot.press("b", "i", "u", "f2")  # the newest, which is at the top: second
        await until(pilot, lambda: isinstance(app.screen, TextDialog), what="the dialog")
        dialog = app.screen
        await retype(pilot, app, "first")
        await until_text(pilot, "already: choose another")
        await retype(pilot, app, "lauf-für-später")
        await until_text(pilot, "can't be a run's name")
        assert app.screen is dialog
        await retype(pilot, app, "better")
        await until(pilot, lambda: app.screen.query_one("#runs", Grid).cursor == "better", what="the cursor on it")
        get = app.marks.get
        assert (get("baseline", ""), get("marked", []), get("pinned", [])) == ("better", ["better"], ["better"])
        assert get("colours", {}) == {"better": 0}
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, TextDialog), what="the dialog")
        await retype(pilot, app, "good a:b")
        await until_text(pilot, "'a:b' can't be a tag")
        await retype(pilot, app, "good -bad")
        await until_text(pilot, "#good")
        assert read_labels(tmp_path / "runs" / "better").tags == ("good",)

    drive(make_app(tmp_path, mode="runs"), do)


def test_a_run_that_goes_away_or_breaks_while_it_is_shown_leaves_the_rest(tmp_path: Path) -> None:
    for order, name in enumerate(("first", "second", "third")):
        plant_run(tmp_path / "runs", name, steps=3, order=order)
    (tmp_path / "runs" / "nothing-in-it").mkdir()

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        names = app.screen.query_one("#runs", Grid)
        await until(pilot, lambda: names.cursor == "third", what="the newest run under the cursor")
        await pilot.press("down")
        shutil.rmtree(tmp_path / "runs" / "second")
        await until(pilot, lambda: "second" not in text_of(app), what="the list without it")
        assert names.cursor == "first"  # what has come to its place
        (tmp_path / "runs" / "third" / "status.json").write_text("{")
        await until_text(pilot, "broken")
        assert names.cursor == "first"
        await pilot.press("4")
        await until_text(pilot, "learn")
        shutil.rmtree(tmp_path / "runs" / "first")
        await pilot.press("3")
        await until(pilot, lambda: app.screen.query_one("#runs", Grid).cursor == "third", what="what is left")

    drive(make_app(tmp_path, mode="runs"), do)


def test_how_far_a_validation_or_a_preparation_is_stands_on_the_list_and_on_the_run(tmp_path: Path) -> None:
    far = {"activity_done": 12, "activity_total": 40, "activity_seconds_left": 8.2}
    plant_live_run(tmp_path / "runs", "live", activity="validating", **far)

    async def do(pilot: Pilot[None], app: Workbench) -> None:  # noqa: ARG001
        await until_text(pilot, "valid. 30%")
        await pilot.press("4")
        await until_text(pilot, "validating 12/40, 8 s left")

    drive(make_app(tmp_path, mode="runs"), do, size=(80, 24))


def test_ctrl_c_copies_the_row_under_the_cursor_into_a_file_too(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "first", steps=3)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "first")
        await pilot.press("ctrl+c")
        file = state_folder() / clipboard.FILE
        await until(pilot, file.exists, what="the file")
        assert file.read_text().split()[1:4] == ["first", "gpt2ish", "done"]
        assert app.clipboard == file.read_text()  # what the terminal was told by OSC 52

    drive(make_app(tmp_path, mode="runs"), do)


def test_what_cannot_be_written_is_said_and_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of the screen into a full disk, and a queue that is damaged, ended the workbench."""
    plant_run(tmp_path / "runs", "first", steps=3)
    queue = Queue(tmp_path / "runs")
    queue.add(["gpt2ish"], name="later")

    def no_room(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "picture.svg")

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        monkeypatch.setattr(app, "save_screenshot", no_room)
        await until_text(pilot, "later")
        await pilot.press("f12")
        await until_text(pilot, "picture.svg can't be written: No space left")
        await pilot.press("Q")
        (queue.folder / "queue.json").write_text("{")
        await pilot.press("d")
        await until_text(pilot, "damaged")
        await until_text(pilot, "first")

    drive(make_app(tmp_path, mode="runs"), do)


def test_the_cursor_comes_back_however_early_the_first_look_at_the_runs_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that was done before the screen stood put the cursor on the first row, and kept that."""
    for order, name in enumerate(("first", "second", "third")):
        plant_run(tmp_path / "runs", name, steps=3, order=order)
    stand = RunsScreen.on_mount

    async def on_mount(screen: RunsScreen) -> None:
        screen.workbench.look_now()
        await asyncio.sleep(0.3)
        stand(screen)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        app.marks.set("cursor", "first")
        monkeypatch.setattr(RunsScreen, "on_mount", on_mount)
        await pilot.press("3")
        await until_text(pilot, "third")
        await until_text(pilot, "─first─")
        assert app.screen.query_one("#runs", Grid).cursor == "first"
        assert app.marks.get("cursor", "") == "first"

    drive(make_app(tmp_path), do)


def test_a_note_is_written_and_a_long_paste_into_its_dialog_is_one_line(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "first", steps=3)
    text = "wörter " * 300

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "first")
        app.post_message(events.Key("N", "N"))
        app.post_message(events.Paste(text + "\nanother line"))  # before the dialog stands
        app.post_message(events.Key("enter", None))
        await until(pilot, lambda: bool(read_labels(tmp_path / "runs" / "first").note), what="the note")
        assert read_labels(tmp_path / "runs" / "first").note == text.strip()

    drive(make_app(tmp_path, mode="runs"), do, size=(80, 24))
