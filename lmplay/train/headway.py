"""How far something is that takes a while beside the steps: a validation, a preparation. Told at a modest rate, since
each telling replaces a file on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

TELL_SECONDS = 1.0


class Headway:
    """Begins when it is made, at `done` of what there is to do (an interrupted preparation goes on)."""

    def __init__(self, done: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._told = clock()
        self._first = done

    def news(self, done: int, total: int | None) -> dict[str, Any] | None:
        """Fields for the status; None when the last were told less than a second ago."""
        now = self._clock()
        if now - self._told < TELL_SECONDS:
            return None
        self._told = now
        left = None
        if total is not None and done > self._first:
            left = max(0, total - done) * (now - self._began) / (done - self._first)
        return {"activity_done": done, "activity_total": total, "activity_seconds_left": left}
