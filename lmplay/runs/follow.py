"""Watching a run as it grows: its status and what was added to its files since the last look.

Viewers and trackers poll this; nothing is read twice, and a run of any length costs what is new in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmplay.runs.jsonl import JsonlTail
from lmplay.runs.layout import EVENTS, METRICS, SYSTEM
from lmplay.runs.status import Status, read_status


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one look found. Rows that came before are void when `restarted`: a file was cut back or replaced."""

    status: Status
    metrics: list[dict[str, Any]]
    events: list[dict[str, Any]]
    system: list[dict[str, Any]]
    restarted: bool = False


class RunFollower:
    """Keeps the place in each file of a run. `recent_bytes` begins that far before the end instead of at the start."""

    def __init__(self, path: Path, *, recent_bytes: int | None = None) -> None:
        self.path = path
        self._metrics, self._events, self._system = (
            JsonlTail(path / name, offset=0 if recent_bytes is None else line_start_near_end(path / name, recent_bytes))
            for name in (METRICS, EVENTS, SYSTEM)
        )
        self._generations = 0

    def poll(self) -> Update:
        """What is new. Raises LMPlayError when the folder no longer holds a readable run."""
        # The status first: once it says that the run has ended, all rows are in the files that are read after it.
        status = read_status(self.path)
        metrics, events, system = self._metrics.read(), self._events.read(), self._system.read()
        generations = self._metrics.generation + self._events.generation + self._system.generation
        restarted = generations != self._generations
        self._generations = generations
        return Update(status=status, metrics=metrics, events=events, system=system, restarted=restarted)


def line_start_near_end(path: Path, distance: int, *, block: int = 1 << 16) -> int:
    """The offset of the first line that begins within `distance` bytes of the file's end.

    Where none does, that of the last, unfinished one; so 0 bytes before the end is behind the last whole line.
    """
    try:
        file = path.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    with file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size - distance)
        if start == 0:
            return 0
        # From the byte before, which ends a line when one begins right at `start`.
        newline = os.pread(file.fileno(), size - start + 1, start - 1).find(b"\n")
        if newline >= 0:
            return start + newline
        position = start - 1
        while position > 0:
            step = min(block, position)
            position -= step
            newline = os.pread(file.fileno(), step, position).rfind(b"\n")
            if newline >= 0:
                return position + newline + 1
        return 0
