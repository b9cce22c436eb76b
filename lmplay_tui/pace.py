"""How often something is looked at: at every tick as long as that is cheap, at once when it is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

_LARGEST_SHARE = 0.05
"""Of the time, that looking may take: what takes long is looked at less often."""
_LONGEST_PAUSE = 10.0


class Pace:
    """Calls `look` never twice at a time."""

    def __init__(self, look: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> None:
        self._look, self._clock = look, clock
        self._busy = False
        self._again = False
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        return not self._busy and self._clock() >= self._next

    @property
    def is_busy(self) -> bool:
        return self._busy

    def hurry(self) -> None:
        """Wait no longer. A look that goes on now may miss what this is asked for: another one follows it."""
        self._next = 0.0
        self._again = self._busy

    async def look(self) -> None:
        """Look, if it is time to."""
        if not self.is_due:
            return
        self._busy = True
        try:
            while True:
                self._again = False
                start = self._clock()
                await self._look()
                took = self._clock() - start
                self._next = self._clock() + min(_LONGEST_PAUSE, took / _LARGEST_SHARE - took)
                if not self._again:
                    return
        finally:
            self._busy = False
