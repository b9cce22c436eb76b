"""Talks with one and two models, without a screen and without models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lmplay_tui.services.talking.chats import ChatStore
from lmplay_tui.services.talking.engine import Engine, EngineError
from lmplay_tui.services.talking.speaker import Speaker
from lmplay_tui.services.talking.talk import Talk
from lmplay_tui.views.chat import conversation_choices


class EchoEngine(Engine):
    """Answers with what it was asked, in capitals; `fails` makes it die instead."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.contexts: list[list[int]] = []
        self.fails = False
        self._up = False

    @property
    def running(self) -> bool:
        return self._up

    async def load(self, checkpoint: str) -> dict[str, Any]:
        await asyncio.sleep(0)  # others have their turn before it is up
        self.loads.append(checkpoint)
        self._up = True
        return {}

    async def generate(self, **request: Any) -> AsyncIterator[dict[str, Any]]:
        self.contexts.append(list(request["context"]))
        if self.fails:
            self._up = False
            raise EngineError("the engine was ended by SIGKILL", died=True)
        text = request["prompt"].strip().upper()
        yield {"event": "text", "text": text}
        tokens = [request["settings"]["seed"]]
        yield {"event": "done", "text": text, "tokens": tokens, "prompt_tokens": [7], "stopped_by": "max_tokens"}

    async def close(self) -> None:
        self._up = False


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    monkeypatch.setattr("lmplay_tui.services.talking.speaker.Engine", EchoEngine)
    talk = Talk(ChatStore(tmp_path), lambda: None)
    talk.choose("first")
    return talk


def engine_of(speaker: Speaker | None) -> EchoEngine:
    assert speaker is not None
    assert isinstance(speaker.engine, EchoEngine)
    return speaker.engine


def said(speaker: Speaker | None) -> list[tuple[str, str]]:
    assert speaker is not None
    return [(turn.text, turn.answer) for turn in speaker.conversation.turns]


def test_a_model_that_is_loaded_while_one_types_is_loaded_once(talk: Talk) -> None:
    async def do() -> None:
        await asyncio.gather(talk.first.load(), talk.ask("hello", {"seed": 0}))

    asyncio.run(do())
    assert engine_of(talk.first).loads == ["first"]
    assert said(talk.first) == [("hello", "HELLO")]


def test_an_answer_that_cannot_be_had_again_stays(talk: Talk) -> None:
    async def do() -> None:
        assert await talk.ask("hello", {"seed": 3})
        assert await talk.ask_again({"seed": 0})
        assert talk.first.conversation.turns[-1].seed == 4
        engine_of(talk.first).fails = True
        assert not await talk.ask_again({"seed": 0})

    asyncio.run(do())
    assert said(talk.first) == [("hello", "HELLO")]
    assert talk.first.conversation.turns[-1].seed == 4
    assert "SIGKILL" in talk.first.problem


def test_where_one_of_two_fails_the_other_ones_answer_stays_and_both_can_be_asked_again(talk: Talk) -> None:
    async def do() -> None:
        await talk.set_beside("second")
        engine_of(talk.first).fails = True
        assert await talk.ask("hello", {"seed": 0})
        assert said(talk.first) == [("hello", "")]
        assert said(talk.second) == [("hello", "HELLO")]
        engine_of(talk.first).fails = False
        assert await talk.ask_again({"seed": 0})

    asyncio.run(do())
    assert said(talk.first) == said(talk.second) == [("hello", "HELLO")]
    assert engine_of(talk.first).contexts[-1] == []  # a turn without an answer is none to the model


def test_both_conversations_are_found_again_on_disk(talk: Talk, tmp_path: Path) -> None:
    async def do() -> Talk:
        await talk.set_beside("second")
        await talk.ask("hello", {"seed": 0})
        kept = ChatStore(tmp_path).load(await talk.keep())
        assert kept is not None
        later = Talk(ChatStore(tmp_path), lambda: None)
        await later.take_up(kept)
        await later.ask("and?", {"seed": 0})
        later.branch()
        await later.keep()
        await talk.set_beside(None)
        assert await talk.ask("alone", {"seed": 0})
        await talk.keep()
        return later

    later = asyncio.run(do())
    assert [speaker.model for speaker in later.speakers] == ["first", "second"]
    assert said(later.first) == said(later.second) == [("hello", "HELLO"), ("and?", "AND?")]
    choices = [words for _, words in conversation_choices(ChatStore(tmp_path).all())]
    # The branch with its second model, the one before it, which went on alone, and what was beside that.
    assert sorted(choices) == ["first | second: hello (2)", "first: hello (2)", "second: hello (1)"]
