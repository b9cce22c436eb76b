"""The chat screen: what its keys offer."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events
from textual.message import Message
from textual.pilot import Pilot

from lmplay_tui.app import Workbench
from lmplay_tui.screens.chat import ChatScreen
from lmplay_tui.services.talking.chats import Conversation, Turn
from lmplay_tui.widgets.bars import KeyBar
from lmplay_tui.widgets.prompt import Prompt
from lmplay_tui.widgets.slider import Slider
from lmplay_tui.widgets.token_view import wrapped_tokens
from tests.tui.support import drive, make_app, plant_run, text_of, until
from tests.tui.test_talk import EchoEngine


@pytest.fixture(autouse=True)
def _engines_that_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmplay_tui.services.talking.speaker.Engine", EchoEngine)


def chat_of(app: Workbench) -> ChatScreen:
    assert isinstance(app.screen, ChatScreen)
    return app.screen


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


def test_one_lands_in_the_talk_that_one_left_unless_one_comes_to_talk_to_another_model(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "base", steps=50)

    async def talk(pilot: Pilot[None], app: Workbench) -> None:
        await until(pilot, lambda: chat_of(app).talk.first.model == "base", what="a model")
        chat = chat_of(app)
        await chat.talk.set_beside("base@best")
        await until(pilot, lambda: app.focused is chat.prompt, what="the field")
        await pilot.press(*"hi", "enter")
        await until(pilot, lambda: text_of(app).count("HI") == 2, what="both answers")

    async def land(pilot: Pilot[None], app: Workbench) -> None:
        await until(pilot, lambda: text_of(app).count("HI") == 2, what="what was said before")
        assert [speaker.model for speaker in chat_of(app).talk.speakers] == ["base", "base@best"]

    async def come(pilot: Pilot[None], app: Workbench) -> None:
        app.open_chat("base@50")
        await until(pilot, lambda: app.current_mode == "chat", what="the chat")
        await until(pilot, lambda: chat_of(app).talk.first.model == "base@50", what="the model one came for")
        await pilot.pause(0.3)
        assert [speaker.model for speaker in chat_of(app).talk.speakers] == ["base@50"]
        assert "HI" not in text_of(app)

    for mode, do in (("chat", talk), ("chat", land), ("runs", come)):
        app = make_app(tmp_path, mode=mode)
        drive(app, do)
        app.state.save()


def test_tokens_are_walked_and_clicked_in_wide_letters_too(tmp_path: Path) -> None:
    tokens = [
        {"text": text, "probability": 0.5, "token": index} for index, text in enumerate(("日本", "a", "🎉", " b"))
    ]

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        chat = chat_of(app)
        await pilot.press("f7")
        await until(pilot, lambda: app.focused is chat.tokens and chat.tokens.size.width > 0, what="the tokens")
        chat.tokens.show(tokens)
        await pilot.press("end")
        assert chat.tokens.cursor == 3
        await pilot.press("home")
        assert chat.tokens.cursor == 0
        for column, index in ((3, 0), (4, 1), (5, 2), (6, 2), (8, 3)):
            await pilot.click(chat.tokens, offset=(column, 0))
            assert chat.tokens.cursor == index, column

    assert wrapped_tokens(tokens, 5) == [[(0, "日本"), (1, "a")], [(2, "🎉"), (3, " b")]]
    drive(make_app(tmp_path, mode="chat"), do)


def test_the_mouse_alone_opens_the_walk_through_the_tokens_and_ends_it(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "base", steps=50)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        chat, bar = chat_of(app), app.screen.query_one(KeyBar)
        await until(pilot, lambda: chat.talk.first.model == "base" and app.focused is chat.prompt, what="the field")
        await pilot.press(*"hi", "enter")
        await until(pilot, lambda: "HI" in text_of(app), what="the answer")
        for focused in (chat.tokens, chat.prompt):
            await until(pilot, lambda: "f7 Tokens" in bar.text, what="the key to click")
            await pilot.click(bar, offset=(bar.text.index("f7 Tokens") + 1, 0))
            await until(pilot, lambda focused=focused: app.focused is focused, what="the focus there")
        assert not chat.token_pane.display

    drive(make_app(tmp_path, mode="chat"), do)


def test_what_was_said_last_stays_in_sight_when_the_terminal_changes_unless_one_looks_above(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        talk, view = chat_of(app).talk, chat_of(app).first_view
        turns = tuple(Turn(text=f"question {number}", prompt="", answer="words " * 30) for number in range(50))

        def at_end() -> bool:
            return 0 < view.max_scroll_y == view.scroll_offset.y

        await until(pilot, lambda: view.size.height > 0, what="the view")
        talk.first.take(Conversation(turns=turns))
        await until(pilot, at_end, what="the end")
        for size in ((80, 24), (120, 40)):
            lines = len(view.lines)
            await pilot.resize_terminal(*size)
            await until(pilot, lambda lines=lines: len(view.lines) != lines and at_end(), what=f"the end at {size}")
        view.scroll_to(y=20, animate=False, force=True)
        talk.first.take(Conversation(turns=(*turns, *turns)))
        await until(pilot, lambda: len(view.lines) > 250, what="more lines")
        assert view.scroll_offset.y == 20

    drive(make_app(tmp_path, mode="chat"), do)
