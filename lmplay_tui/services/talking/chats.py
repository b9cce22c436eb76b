"""Conversations with models: turns, the text that they are to a model, and the files they are kept in."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lmplay.utils.conversation import ANSWER_PROMPT, turn_text
from lmplay.utils.files import to_json, write_atomically
from lmplay_tui.state import state_folder

_FORMAT = 1
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")

Mode = Literal["continue", "talk"]
TALK_STOPS = ("\nUser:", "\nSystem:")
"""In talk mode an answer ends before the model speaks for the other side."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What was typed, what the model was given of it, and what it wrote. Tokens, so that any engine can go on."""

    text: str
    prompt: str
    prompt_tokens: tuple[int, ...] = ()
    answer: str = ""
    tokens: tuple[int, ...] = ()
    stopped_by: str = ""
    seed: int = 0
    tokens_per_second: float | None = None
    time_to_first_token: float | None = None
    probabilities: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """The turns with one model. Every change is a new object."""

    id: str = ""
    model: str = ""
    mode: Mode = "continue"
    beside: str = ""
    """The id of what another model answered to the same prompts."""
    turns: tuple[Turn, ...] = ()
    changed: float = 0.0

    @property
    def context(self) -> list[int]:
        """The tokens of all turns."""
        return [token for turn in self.turns for token in (*turn.prompt_tokens, *turn.tokens)]

    def prompt_for(self, text: str) -> str:
        """What the model is given of a message, after the turns before it."""
        if self.mode == "continue":
            return ("\n" if self.context else "") + text
        before = "" if not self.context or self.turns[-1].stopped_by == "end_of_text" else "\n\n"
        return before + turn_text("user", text)[0] + ANSWER_PROMPT

    def with_turn(self, turn: Turn) -> Conversation:
        return replace(self, turns=(*self.turns, turn), changed=time.time())

    def without_last(self) -> Conversation:
        return replace(self, turns=self.turns[:-1], changed=time.time())

    @property
    def title(self) -> str:
        """The first words that were typed."""
        return " ".join(self.turns[0].text.split())[:60] if self.turns else "(empty)"


def new_conversation(model: str = "", mode: Mode = "continue") -> Conversation:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    return Conversation(id=name, model=model, mode=mode, changed=time.time())


def branch(conversation: Conversation) -> Conversation:
    """The same turns under another id: what is said from here on leaves the old one as it is."""
    return replace(conversation, id=new_conversation().id, changed=time.time())


def done_turn(text: str, prompt: str, seed: int, event: dict[str, Any]) -> Turn:
    """The turn that the engine's `done` event completes."""
    return Turn(
        text=text,
        prompt=prompt,
        prompt_tokens=tuple(event.get("prompt_tokens") or ()),
        answer=str(event.get("text", "")),
        tokens=tuple(event.get("tokens") or ()),
        stopped_by=str(event.get("stopped_by", "")),
        seed=seed,
        tokens_per_second=event.get("tokens_per_second"),
        time_to_first_token=event.get("time_to_first_token"),
        probabilities=tuple(event.get("probabilities") or ()),
    )


@dataclass
class ChatStore:
    """One file a conversation, in the folder of what the workbench remembers."""

    folder: Path = field(default_factory=lambda: state_folder() / "chats")

    def save(self, conversation: Conversation) -> None:
        """Raises `OSError`."""
        if conversation.turns:
            content = {"format": _FORMAT, **asdict(conversation)}
            write_atomically(self.folder / f"{conversation.id}.json", to_json(content), durable=False)

    def load(self, name: str) -> Conversation | None:
        """None when the file isn't there or can't be read."""
        if not _ID.fullmatch(name):
            return None
        try:
            content = json.loads((self.folder / f"{name}.json").read_bytes())
            return _conversation(content)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def all(self, *, most: int = 200) -> Sequence[Conversation]:
        """The newest first."""
        try:
            names = sorted((path.stem for path in self.folder.glob("*.json")), reverse=True)
        except OSError:
            return ()
        found = [self.load(name) for name in names[:most]]
        return sorted((one for one in found if one is not None), key=lambda one: -one.changed)


def _conversation(content: dict[str, Any]) -> Conversation:
    if content.pop("format") != _FORMAT:
        raise ValueError("of another version")
    turns = tuple(
        Turn(
            **{
                **turn,
                "tokens": tuple(turn["tokens"]),
                "prompt_tokens": tuple(turn["prompt_tokens"]),
                "probabilities": tuple(turn["probabilities"]),
            }
        )
        for turn in content.pop("turns")
    )
    return Conversation(**content, turns=turns)
