"""The chat screen: what its keys offer."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events
from textual.message import Message
from textual.pilot import Pilot

from lmplay_tui.app import Workbench
from lmplay_tui.screens.chat import ChatScreen
from lmplay_tui.widgets.bars import KeyBar
from lmplay_tui.widgets.prompt import Prompt
from lmplay_tui.widgets.slider import Slider
from tests.tui.support import drive, make_app, until


def keys_shown(app: Workbench) -> str:
    return app.screen.query_one(KeyBar).text


def test_the_line_of_keys_is_right_before_the_field_knows_of_its_focus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A widget learns of its focus by a message that may come after the last look at the keys; here it never comes."""
    post = Prompt.post_message

    def hold_focus_back(prompt: Prompt, message: Message) -> bool:
        return True if isinstance(message, events.Focus | events.Blur) else post(prompt, message)

    monkeypatch.setattr(Prompt, "post_message", hold_focus_back)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        assert isinstance(app.screen, ChatScreen)
        await until(pilot, lambda: app.focused is app.screen.query_one(Prompt), what="the focus in the field")
        await until(pilot, lambda: "Send" in keys_shown(app) and "Leave field" in keys_shown(app), what="its keys")
        app.screen.action_leave()
        await until(pilot, lambda: "Write" in keys_shown(app), what="the keys outside of the field")
        assert "Send" not in keys_shown(app)

    drive(make_app(tmp_path, mode="chat"), do)


def test_a_slider_goes_with_the_mouse_and_with_keys(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        slider = app.screen.query_one("#temperature", Slider)
        await until(pilot, lambda: slider.size.width > 0, what="the slider")
        await pilot.mouse_down(slider, offset=(14, 0))
        low = slider.value
        await pilot.hover(slider, offset=(18, 0))
        assert 0 < low < slider.value < 2
        await pilot.hover(app.screen, offset=(119, 10))  # beyond its end, and beside it
        assert slider.value == 2.0
        await pilot.mouse_up(app.screen, offset=(119, 10))
        await pilot.hover(slider, offset=(14, 0))
        assert slider.value == 2.0
        await pilot.click(slider, offset=(3, 0))  # its name
        await pilot.press("left")
        assert slider.value == 1.95
        assert app.state.get("chat.settings", {})["temperature"] == 1.95

    drive(make_app(tmp_path, mode="chat"), do)
