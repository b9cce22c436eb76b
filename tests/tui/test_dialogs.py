"""A dialog that is asked for while something else goes away."""

from __future__ import annotations

import asyncio
import contextvars
from pathlib import Path

import pytest
from textual.pilot import Pilot

from lmplay_tui.app import Workbench
from lmplay_tui.dialogs.asking import Choices, TextDialog
from lmplay_tui.widgets.grid import Grid
from tests.tui.support import drive, make_app, until, until_text


def test_a_dialog_that_is_asked_for_by_one_that_goes_ends_nothing(tmp_path: Path) -> None:
    """The removal of the first, cancelled with its worker, ended the workbench without a word.

    And what the launch form waited for was shown on a form that had been half taken down, which ended it as well.
    """

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        for _ in range(3):
            going = TextDialog("One", "that goes")
            await app.push_screen(going)
            waiting = going.run_worker(asyncio.sleep(60))
            await pilot.pause()
            going.dismiss()
            assert waiting.is_cancelled
            going.run_worker(app.push_screen_wait(TextDialog("Another", "that it asks for")))
            await until(pilot, lambda: not going.is_attached, what="a dialog that is gone")  # noqa: B023
        await pilot.press("escape")  # heard by a workbench that goes on
        assert app.is_running

    drive(make_app(tmp_path), do)


def test_a_worker_that_is_cancelled_while_it_asks_takes_no_removal_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be removed is removed by whoever asks for a dialog next; here it takes as long as the test likes."""
    asks = contextvars.ContextVar("asks", default=False)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        flush, release, removal = app._flush_next_callbacks, asyncio.Event(), ["not begun"]

        async def slow_flush() -> None:
            if asks.get() and removal == ["not begun"]:
                removal[0] = "cancelled"  # unless it comes to its end
                await release.wait()
                removal[0] = "done"
            await flush()

        async def ask() -> None:
            asks.set(True)
            await app.push_screen_wait(TextDialog("One", "that is never seen"))

        monkeypatch.setattr(app, "_flush_next_callbacks", slow_flush)
        worker = app.screen.run_worker(ask())
        await until(pilot, lambda: removal != ["not begun"], what="the removal")
        worker.cancel()
        await until(pilot, lambda: worker.is_finished, what="the end of who asks")
        release.set()
        await pilot.pause(0.05)
        assert removal == ["done"]

    drive(make_app(tmp_path), do)


def test_a_double_click_takes_one_of_a_list_and_the_help_says_so(tmp_path: Path) -> None:
    taken: list[str | None] = []

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish")
        app.push_screen(Choices("Take one", [("first", ""), ("second", "")]), taken.append)
        await until_text(pilot, "second")
        await pilot.click(app.screen.query_one(Grid), offset=(3, 1))
        await pilot.pause()
        assert not taken
        await pilot.click(app.screen.query_one(Grid), offset=(3, 1), times=2)
        await until(pilot, lambda: taken == ["second"], what="the second one taken")
        assert "double click" in Grid.HELP

    drive(make_app(tmp_path), do)
