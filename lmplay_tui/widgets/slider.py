"""A value between two ends: left and right step it, the mouse sets and drags it on its bar. One line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from lmplay_tui.actions import bindings_for
from lmplay_tui.figures import progress_bar, short_number
from lmplay_tui.lines import line, to_strip
from lmplay_tui.theme import palette_of

_LABEL, _VALUE = 12, 6


class Slider(Widget, can_focus=True):
    """`stops` are the values that it takes, ascending."""

    HELP = "A setting of sampling. Left and right change it; it holds from the next answer on."
    DEFAULT_CSS = """
    Slider { height: 1; width: 1fr; }
    """
    BINDINGS = bindings_for("slider")

    @dataclass
    class Changed(Message):
        slider: Slider
        value: float

        @property
        def control(self) -> Slider:
            return self.slider

    def __init__(
        self, label: str, stops: Sequence[float], *, value: float, told: str = "", id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self.label, self.stops, self.value = label, tuple(stops), value
        self.told = f"{label}: {told}" if told else ""
        """What this is a setting of, as the help says it."""
        self.tooltip = told or None

    def set_value(self, value: float) -> None:
        if value != self.value:
            self.value = value
            self.refresh()
            self.post_message(self.Changed(self, value))

    @property
    def share(self) -> float:
        """Where the value is among its stops, 0 to 1."""
        below = sum(stop <= self.value for stop in self.stops) - 1
        return max(0, below) / max(1, len(self.stops) - 1)

    @property
    def _room(self) -> int:
        """How many cells the bar has."""
        return max(4, self.size.width - _LABEL - _VALUE - 1)

    def _step(self, step: int) -> None:
        nearest = min(range(len(self.stops)), key=lambda place: abs(self.stops[place] - self.value))
        self.set_value(self.stops[min(max(nearest + step, 0), len(self.stops) - 1)])

    def action_less(self) -> None:
        self._step(-1)

    def action_more(self) -> None:
        self._step(1)

    def render_line(self, y: int) -> Strip:  # noqa: ARG002
        ascii_only = bool(getattr(getattr(self.app, "options", None), "ascii", False))
        width = self.size.width
        ink = "key" if self.has_focus else ""
        bar = progress_bar(self.share, self._room, ascii_only=ascii_only, ink="accent" if self.has_focus else "primary")
        value = short_number(int(self.value) if float(self.value).is_integer() else self.value)
        content = (*line((f"{self.label:<{_LABEL}}", ink or "muted")), *bar, (f" {value:>{_VALUE}}", ink or "bold"))
        return to_strip(content, palette_of(self.app), width).apply_style(self.rich_style)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button == 1 and 0 <= event.x - _LABEL < self._room:
            self.capture_mouse()
            self._go_to(event.x)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self.app.mouse_captured is self:
            self._go_to(event.x)

    def on_mouse_up(self) -> None:
        self.release_mouse()

    def _go_to(self, column: int) -> None:
        """Take the value of a column of the bar; beyond its ends that of the end."""
        share = min(1.0, max(0.0, (column - _LABEL) / max(1, self._room - 1)))
        self.set_value(self.stops[round(share * (len(self.stops) - 1))])

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
