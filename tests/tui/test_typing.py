"""Keys that come fast: each is done where the one before it led."""

from __future__ import annotations

from pathlib import Path

from textual import events
from textual.pilot import Pilot

from lmplay_tui.app import Workbench
from lmplay_tui.dialogs.asking import TextDialog
from lmplay_tui.widgets.fields import Field
from tests.tui.support import FakeCommands, drive, make_app, until, until_text


def test_what_is_typed_right_after_tab_goes_to_the_next_field(tmp_path: Path) -> None:
    plan = {"stages": [], "datasets": []}
    commands = FakeCommands({"settings": [], "plans": lambda *arguments: plan if "show" in arguments else []})

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        await pilot.press("l")
        await until_text(pilot, "overrides")
        field = app.screen.query_one("#field-seed", Field)
        field.focus()
        await pilot.pause()
        # Without waiting in between, as keys come in from a slow line.
        for key, character in (("tab", None), ("x", "x"), ("y", "y")):
            app.post_message(events.Key(key, character))
        name = app.screen.query_one("#field-name", Field)
        await until(pilot, lambda: name.value == "xy", what="the text in the next field")
        assert field.value == ""

    drive(make_app(tmp_path, commands=commands), do)


def test_what_is_typed_in_a_burst_goes_to_where_the_key_before_it_led(tmp_path: Path) -> None:
    """Of `/med` the letters reached the list before the slash opened its filter: `e` opened an editor."""

    def burst(app: Workbench, *keys: str) -> None:
        for key in keys:  # a pilot would wait after each
            app.post_message(events.Key(key, key if len(key) == 1 else None))

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        field = app.screen.query_one("#filter", Field)
        burst(app, "slash", *"medd", "backspace", *"iu", "backspace", "home", "a", "delete")
        await until(pilot, lambda: field.value == "aedi", what="the filter as it was typed")
        burst(app, "escape", "down", "1", "3", "slash", *"exp", "escape", "5")
        await until(pilot, lambda: app.current_mode == "compare", what="the screen of the last key")
        assert field.value == ""
        burst(app, "1", "n", *"idea", "backspace")
        await until(pilot, lambda: isinstance(app.screen, TextDialog), what="the dialog")
        dialog = app.screen
        await until(pilot, lambda: dialog.query_one(Field).value == "ide", what="what was typed into the dialog")
        burst(app, "escape", "escape", "f1", "escape", "3")
        await until(pilot, lambda: app.current_mode == "runs", what="all dialogs closed again")

    drive(make_app(tmp_path), do)
