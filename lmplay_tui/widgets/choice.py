"""One of a few: left and right go through them, enter lists them. One line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from lmplay_tui.actions import bindings_for
from lmplay_tui.lines import fitted, line, to_strip
from lmplay_tui.theme import palette_of


class Choice(Widget, can_focus=True):
    """`value` is what is chosen; `Changed` tells that a person chose."""

    HELP = "A choice: left and right go through it, enter lists all."
    DEFAULT_CSS = """
    Choice { height: 1; width: 1fr; background: $surface; }
    Choice:focus { background: $panel; }
    """
    BINDINGS = bindings_for("choice")

    @dataclass
    class Changed(Message):
        choice: Choice
        value: str

        @property
        def control(self) -> Choice:
            return self.choice

    @dataclass
    class ListWanted(Message):
        choice: Choice

    def __init__(self, choices: Sequence[str] = (), *, value: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self.choices = tuple(choices)
        self.value = value or (self.choices[0] if self.choices else "")
        self._placeholder = ""
        self.told = ""
        """What is chosen here, as the help says it."""

    @property
    def placeholder(self) -> str:
        """What stands dim where the choice is none."""
        return self._placeholder

    @placeholder.setter
    def placeholder(self, text: str) -> None:
        if text != self._placeholder:
            self._placeholder = text
            self.refresh()

    def set_choices(self, choices: Sequence[str], value: str | None = None) -> None:
        """Other choices; what is chosen stays, even where it isn't among them."""
        self.choices = tuple(choices)
        if value is not None:
            self.value = value
        elif not self.value and self.choices:
            self.value = self.choices[0]
        self.refresh()

    def choose(self, value: str) -> None:
        if value != self.value:
            self.value = value
            self.refresh()
            self.post_message(self.Changed(self, value))

    def _step(self, step: int) -> None:
        if self.choices:
            place = self.choices.index(self.value) if self.value in self.choices else -step
            self.choose(self.choices[(place + step) % len(self.choices)])

    def action_next(self) -> None:
        self._step(1)

    def action_previous(self) -> None:
        self._step(-1)

    def action_list(self) -> None:
        self.post_message(self.ListWanted(self))

    def render_line(self, y: int) -> Strip:  # noqa: ARG002
        ascii_only = bool(getattr(getattr(self.app, "options", None), "ascii", False))
        before, after = ("<", ">") if ascii_only else ("‹", "›")
        ink = "key" if self.has_focus else "faint"
        width = self.size.width
        room = max(1, width - 4)
        shown = _end_of_path(self.value, room, "..." if ascii_only else "…")
        chosen = (shown, "bold" if self.has_focus else "") if self.value else (self.placeholder, "muted")
        value = fitted(line(chosen), room)
        strip = to_strip((*line((f"{before} ", ink)), *value, (f" {after}", ink)), palette_of(self.app), width)
        return strip.apply_style(self.rich_style)

    def on_click(self, event: events.Click) -> None:
        if event.x < 2:
            self.action_previous()
        elif event.x >= self.size.width - 2:
            self.action_next()
        else:
            self.action_list()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()


def _end_of_path(value: str, room: int, ellipsis: str) -> str:
    """Of a path that is too long the end, which tells more; anything else as it is."""
    if "/" not in value or len(value) <= room:
        return value
    return ellipsis + value[len(value) - room + len(ellipsis) :]
