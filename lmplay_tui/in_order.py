"""Keys are done one after another, so that what is typed in a burst goes to where the key before it led.

Textual hands a key to the widget in focus at once, but does what the key is bound to only when it has come up from
there to the application. Of `/med`, typed fast or arriving together over a slow line, the letters would reach the list
before the slash opened its filter, and `e` would open an editor; in a field, `ab⌫c` would become `ab`.
"""

from __future__ import annotations

import asyncio
from collections import deque

from textual import events
from textual.app import App
from textual.message import Message

_PATIENCE = 0.4
"""Seconds after which a key that never came back (what it closed took it along) holds up the next no longer."""
_TURNS = 20
"""Turns of the event loop in which what the key began gets as far as opening a dialog."""
_LOOKS = 20
"""Times that a screen which was just opened is waited for, 10 ms each."""


class KeyPassed(Message):
    """Goes the way of a key right behind it: where this arrives, the key was done."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class KeysInOrder(App[None]):
    """An application that hands out a key, or a paste, when the one before has been done."""

    def __init__(self, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._held: deque[events.Key | events.Paste] = deque()
        self._under_way = 0
        """The number of the key that is being done; 0 when there is none."""
        self._handed_out = 0
        self._settling: asyncio.Task[None] | None = None

    async def on_event(self, event: events.Event) -> None:
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded:
            await super().on_event(event)
        elif self._under_way:
            self._held.append(event)
            number = self._under_way
            self.set_timer(_PATIENCE, lambda: self._next_after(number))
        else:
            await self._hand_out(event)

    async def _hand_out(self, event: events.Key | events.Paste) -> None:
        self._handed_out += 1
        number = self._under_way = self._handed_out
        behind = self.focused or self.screen
        await super().on_event(event)
        behind.post_message(KeyPassed(number))

    async def on_key_passed(self, message: KeyPassed) -> None:
        self._settling = asyncio.create_task(self._settle(message.number))

    async def _settle(self, number: int) -> None:
        """Let a screen that the key opened come to stand, and the focus go to where the key put it."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for _ in range(_LOOKS):
            if self.screen.is_mounted:
                break
            await asyncio.sleep(0.01)
        self.call_later(self._next_after, number)

    async def _next_after(self, number: int) -> None:
        """The key of that number is done, or lost: the next one."""
        if number == self._under_way:
            self._under_way = 0
            if self._held:
                await self._hand_out(self._held.popleft())
