"""--readonly: nothing that changes anything is offered, and a key that is missed says why."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot

from lmplay_tui.actions import ACTIONS
from lmplay_tui.app import Workbench
from tests.tui.support import drive, make_app, plant_live_run, plant_run, text_of, until, until_text


def test_readonly_offers_nothing_that_changes_anything(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "first", steps=3)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "first")
        assert "read only" in text_of(app)
        offered = {active.binding.id for active in app.screen.active_bindings.values()}
        assert not offered & {action.id for action in ACTIONS if action.changes}
        assert "runs.mark" in offered
        await pilot.press("D", "X", "S", "A", "l", "2")
        await pilot.pause(0.1)
        assert len(app.screen_stack) == 1

    drive(make_app(tmp_path, mode="runs", readonly=True), do)


def test_a_key_that_readonly_takes_away_says_so_and_asks_nothing_of_the_run(tmp_path: Path) -> None:
    run = plant_live_run(tmp_path / "runs", "live")

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "live")
        for number, mode, key in (("3", "runs", "p"), ("3", "runs", "S"), ("4", "run", "C"), ("4", "run", "X")):
            app.clear_notifications()
            await pilot.press(number)
            await until(pilot, lambda mode=mode: app.current_mode == mode, what=mode)
            await until(pilot, lambda: "not with --readonly" not in text_of(app), what="a screen without a toast")
            await pilot.press(key)
            await until_text(pilot, "not with --readonly")
        assert not list((run / "control").glob("*"))

    drive(make_app(tmp_path, mode="runs", readonly=True), do)
