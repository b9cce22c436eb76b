"""Signals that reach a worker while it imports torch, seconds in which nothing of it could heed them.

Without this a scheduler's SIGTERM would end the process without a word, and its run would count as lost.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

_given: dict[int, Any] = {}
"""What became of each signal before."""
_came: list[int] = []


def remember() -> None:
    """From now on SIGTERM, SIGUSR1 and SIGINT are only noted; a second SIGINT ends the process at once."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        _given[number] = signal.signal(number, _note)


def remembered() -> signal.Signals | None:
    """The last signal that was noted; further ones do again what they did before."""
    for number, handler in _given.items():
        signal.signal(number, handler)
    _given.clear()
    return signal.Signals(_came.pop()) if _came else None


def _note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a handler
    if number == signal.SIGINT and signal.SIGINT in _came:
        raise KeyboardInterrupt
    _came.append(number)
