"""Jump mode: every pane gets a letter, and that letter goes there."""

from __future__ import annotations

from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.geometry import Offset
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Label

from lmplay_tui.dialogs.modal import Modal

_LETTERS = "asdfgqwertzxcvbnmyuiophjkl"


class JumpScreen(Modal[None]):
    """Labels over what can have the focus; any other key goes back."""

    DEFAULT_CSS = """
    JumpScreen { background: $background 35%; }
    JumpScreen Label {
        position: absolute; width: 3; height: 1; content-align: center middle;
        background: $accent; color: $background; text-style: bold;
    }
    """
    HELP = "Press the letter of the pane to go to."

    def __init__(self, below: Screen[Any]) -> None:
        super().__init__()
        self._targets: dict[str, Widget] = {}
        taken: set[Offset] = set()
        for widget in below.focus_chain:
            place = widget.region.offset
            if widget.region.area and place not in taken and len(self._targets) < len(_LETTERS):
                self._targets[_LETTERS[len(self._targets)]] = widget
                taken.add(place)

    def compose(self) -> ComposeResult:
        for letter, widget in self._targets.items():
            label = Label(letter)
            label.styles.offset = (widget.region.x, widget.region.y)
            yield label

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        target = self._targets.get(event.key)
        self.dismiss()
        if target is not None:
            self.app.call_later(target.focus)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        for label in self.query(Label):
            if label.region.contains(event.screen_x, event.screen_y):
                target = self._targets[str(label.content)]
                self.app.call_later(target.focus)
        self.dismiss()
