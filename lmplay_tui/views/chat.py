"""What the chat screen shows: the turns as lines, and what is known of the model and of the newest answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lmplay.utils.figures import format_bytes
from lmplay_tui.lines import Line, facts, line, wrapped
from lmplay_tui.services.talking.chats import Conversation, Turn
from lmplay_tui.services.talking.speaker import Speaker

_ENDS = {
    "end_of_text": "the model ended it",
    "max_tokens": "as many tokens as allowed",
    "stop": "a stop string",
    "cancelled": "stopped",
}


def transcript(speaker: Speaker, width: int, *, ascii_only: bool = False) -> list[Line]:
    """All turns, and the answer that is being written."""
    width = max(10, width - 1)
    lines: list[Line] = []
    sign = "> " if ascii_only else "❯ "
    for turn in speaker.conversation.turns:
        lines += [*_exchange(turn.text, turn.answer, width, sign), *_about(turn, width), ()]
    if speaker.asked:
        lines += _said(speaker.asked, width, sign)
    if speaker.writing is not None:
        cursor = "_" if ascii_only else "▌"
        lines += [*_answered(speaker.writing + cursor, width), ()]
    elif speaker.activity:
        lines.append(line((f"{speaker.activity}...", "primary")))
    if speaker.problem:
        lines += wrapped(speaker.problem, width, "bad")
    if not lines:
        hint = "Type below; enter sends. f4 chooses the model, f8 changes between going on with a text and talking."
        lines = wrapped(hint, width, "muted")
    return lines


@lru_cache(maxsize=256)
def _exchange(text: str, answer: str, width: int, sign: str) -> tuple[Line, ...]:
    """Of a turn that is complete: wrapped once, not at every word of a later one."""
    return (*_said(text, width, sign), *_answered(answer, width))


def _said(text: str, width: int, sign: str) -> list[Line]:
    parts = wrapped(text, width - 2)
    return [
        line((sign if index == 0 else "  ", "bold accent"), *((words, "bold") for words, _ in part))
        for index, part in enumerate(parts)
    ]


def _answered(text: str, width: int) -> list[Line]:
    return [line("  ", *part) for part in wrapped(text.strip("\n") or " ", width - 2)]


def _about(turn: Turn, width: int) -> list[Line]:
    if turn.stopped_by == "failed":
        return [line("  ", *part) for part in wrapped("failed; a retry asks both again", width - 2, "bad")]
    parts = [f"{len(turn.tokens)} tokens"]
    if turn.tokens_per_second:
        parts.append(f"{turn.tokens_per_second:.1f} tok/s")
    if turn.time_to_first_token is not None:
        parts.append(f"first after {turn.time_to_first_token:.2f} s")
    parts.append(f"seed {turn.seed}")
    end = _ENDS.get(turn.stopped_by, turn.stopped_by)
    told = ", ".join(parts) + (f"; {end}" if end else "")
    return [line("  ", *part) for part in wrapped(told, width - 2, "muted")]


def conversation_choices(kept: Sequence[Conversation]) -> list[tuple[str, str]]:
    """(id, what is said of it); what a second model answered comes with the conversation that it stood beside."""
    models = {one.id: one.model for one in kept}
    beside = {one.beside for one in kept}
    return [
        (one.id, f"{' | '.join(filter(None, (one.model, models.get(one.beside))))}: {one.title} ({len(one.turns)})")
        for one in kept
        if one.id not in beside
    ]


def model_lines(speaker: Speaker, width: int, *, newest: int | None, mode: str) -> list[Line]:
    """Facts of the loaded model and of its cache."""
    width = max(20, width - 1)
    told: Mapping[str, Any] = speaker.engine.facts
    last = speaker.last
    lines: list[Line] = wrapped(speaker.title or "no model: f4 chooses one", width, "bold")
    if not told:
        lines.append(line(("not loaded yet", "muted")))
    step = told.get("step")
    if isinstance(step, int) and newest is not None and newest > step:
        lines.append(line((f"step {newest:,} is newer: f6", "warn")))
    held, room = last.get("held_tokens"), told.get("max_len")
    lines += facts(
        [
            ("mode", "talk in turns" if mode == "talk" else "continue a text"),
            ("weights", str(told.get("weights") or "")),
            ("device", str(told.get("device") or "")),
            ("cache", format_bytes(told["cache_bytes"]) if told.get("cache_bytes") else ""),
            ("context", f"{held or 0} of {room:,}" if room else ""),
            ("speed", f"{last['tokens_per_second']:.1f} tok/s" if last.get("tokens_per_second") else ""),
            ("first", f"{last['time_to_first_token']:.2f} s" if last.get("time_to_first_token") else ""),
            ("reused", f"{last['reused_tokens']} tokens" if last.get("reused_tokens") else ""),
        ],
        name_width=7,
        width=width,
    )
    return lines
