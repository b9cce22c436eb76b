"""Borders between panes: moved by key and by mouse, kept for the next time, and where there is much room."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot
from textual.widget import Widget

from lmplay_tui.app import Workbench
from lmplay_tui.state import State
from lmplay_tui.widgets.bars import TopBar
from lmplay_tui.widgets.pane import Divider
from tests.tui.support import EXPERIMENTS, FakeCommands, drive, make_app, plant_run, text_of, until, until_text


async def drag(pilot: Pilot[None], widget: Widget, to: tuple[int, int]) -> None:
    """From the widget's upper left corner to a place on the screen."""
    await pilot.mouse_down(widget, offset=(0, 0))
    await pilot.hover(offset=to)
    await pilot.mouse_up(offset=to)


def test_borders_move_by_key_and_by_mouse_and_stay_where_they_were_put(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "first", steps=3)
    left: dict[str, int] = {}

    async def leave(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "first")
        below = app.screen.query_one("#preview")
        before = below.region.y
        await pilot.press("ctrl+left")  # not this border's direction
        await pilot.press("ctrl+up", "ctrl+up")
        await until(pilot, lambda: below.region.y < before, what="the border further up")
        await drag(pilot, below, (9, 12))
        await until(pilot, lambda: below.region.y == 12, what="the border where it was dragged to")
        await pilot.resize_terminal(200, 50)
        divider = app.screen.query_one(Divider)
        await until(pilot, lambda: divider.region.x > 100, what="the panes beside each other")
        await drag(pilot, divider, (90, 20))
        await until(pilot, lambda: divider.region.x == 90, what="the border where it was dragged to")
        await pilot.press("ctrl+right")
        await until(pilot, lambda: divider.region.x > 90, what="the border further to the right")
        left["x"] = divider.region.x

    async def come_back(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "first")
        assert app.screen.query_one("#preview").region.y == 12
        await pilot.resize_terminal(200, 50)
        await until(pilot, lambda: app.screen.query_one(Divider).region.x == left["x"], what="the other border, too")

    drive(make_app(tmp_path, mode="runs"), leave)
    drive(make_app(tmp_path, mode="runs", state=State(tmp_path / "state" / "workbench.json")), come_back)


def test_a_large_screen_shows_the_layers_beside_the_other_views(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "28,000")
        await pilot.press("v")
        await until_text(pilot, "Block x 6")
        await pilot.resize_terminal(200, 50)
        await until_text(pilot, "Layers  depth 3")
        assert "Overview   Checks" in text_of(app)  # the view that stands beside is none of the tabs
        assert "28,000" in text_of(app)
        assert "Block x 6" in text_of(app)
        await pilot.press("left_square_bracket", "left_square_bracket")
        await until(pilot, lambda: "Block x 6" not in text_of(app), what="fewer levels")
        detail = app.screen.query_one("#detail-pane")
        await drag(pilot, detail, (9, 20))
        await until(pilot, lambda: detail.region.y == 20, what="the border where it was dragged to")
        await pilot.press("ctrl+down")
        await until(pilot, lambda: detail.region.y > 20, what="the border further down")
        await pilot.resize_terminal(80, 24)
        await until_text(pilot, "Overview   Layers   Checks")
        assert detail.region.y == 1

    drive(make_app(tmp_path), do)


def test_a_list_that_comes_in_late_has_rows_for_all(tmp_path: Path) -> None:
    """Nothing is known of the experiments at the first start: the border was drawn for an empty list."""
    many = [{**EXPERIMENTS[0], "name": f"idea_{number}"} for number in range(14)]

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until(pilot, lambda: all(one["name"] in text_of(app) for one in many), what="all of them")

    drive(make_app(tmp_path, commands=FakeCommands({"list": many})), do, size=(160, 50))


def test_every_screen_can_be_clicked_where_there_is_no_room_for_titles(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until(pilot, lambda: " 7" in text_of(app).splitlines()[0], what="the number of the last screen")
        top = text_of(app).splitlines()[0]
        await pilot.click(app.screen.query_one(TopBar), offset=(top.index(" 7") + 1, 0))
        await until(pilot, lambda: app.current_mode == "data", what="the last screen")

    drive(make_app(tmp_path), do, size=(40, 12))
