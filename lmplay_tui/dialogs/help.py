"""Help: what the widget in focus is, and every key that works there, on its screen, and everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import Screen

from lmplay_tui.actions import BY_ID, Action, bindings_for
from lmplay_tui.dialogs.modal import Modal
from lmplay_tui.keymap import key_name
from lmplay_tui.lines import Line, line, wrapped
from lmplay_tui.widgets.text_view import TextView

_TITLES = {
    "app": "Everywhere",
    "grid": "In a list",
    "split": "Panes",
    "chart": "In a chart",
    "steer": "Steering the run",
    "queue": "In the queue",
    "slider": "On a slider",
    "tokens": "Token by token",
    "modal": "Here",
    "dialog": "Here",
    "answer": "In the field",
    "choice": "On a choice",
}


_GENERAL = ("grid", "split", "app")
"""What works alike everywhere comes after what is of this screen."""


def help_lines(screen: Screen[Any], keymap: Mapping[str, str], width: int, *, ascii_only: bool = False) -> list[Line]:
    """The text for what is in focus on `screen`, then its keys by place: the nearest first."""
    from lmplay_tui.screens.base import help_of

    lines: list[Line] = []
    text = help_of(screen.focused or screen)
    about = help_of(screen)
    for part in dict.fromkeys(filter(None, (getattr(screen.focused, "told", ""), text, about))):
        lines += [*wrapped(part, width), ()]
    by_place: dict[str, list[Action]] = {}
    for active in screen.active_bindings.values():
        action = BY_ID.get(active.binding.id or "")
        if action is not None and active.enabled and action not in by_place.setdefault(action.place, []):
            by_place[action.place].append(action)
    for place, actions in sorted(by_place.items(), key=lambda item: item[0] in _GENERAL):
        lines.append(line((_TITLES.get(place, "On this screen"), "bold accent")))
        for action in actions:
            keys = keymap.get(action.id, action.keys)
            names = " ".join(key_name(key.strip(), ascii_only=ascii_only) for key in keys.split(","))
            told = wrapped(action.help, max(20, width - 15))
            lines.append(line((f"{names:<13}", "key"), "  ", *told[0]))
            lines += [line(" " * 15, *more) for more in told[1:]]
        lines.append(())
    return lines


class HelpScreen(Modal[None], inherit_bindings=False):
    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background 55%; }
    HelpScreen > Vertical {
        width: 84; max-width: 96%; height: 22; max-height: 100%; padding: 0 1;
        background: $surface; border: round $primary; border-title-color: $primary; border-title-style: bold;
        border-subtitle-color: $text-muted;
    }
    HelpScreen TextView { height: 1fr; }
    """
    BINDINGS = bindings_for("dialog")

    def __init__(self, below: Screen[Any]) -> None:
        super().__init__()
        self._below = below

    def compose(self) -> ComposeResult:
        from lmplay_tui.app import Workbench

        assert isinstance(self.app, Workbench)
        width = min(84, int(self.app.size.width * 0.96)) - 5
        lines = help_lines(self._below, self.app.keymap, width, ascii_only=self.app.options.ascii)
        with Vertical() as box:
            box.border_title = "Help"
            box.border_subtitle = "esc closes, arrow keys scroll"
            yield TextView(lines, focusable=True)

    def on_mount(self) -> None:
        self.query_one(TextView).focus()

    def action_cancel(self) -> None:
        self.dismiss()

    action_confirm = action_cancel
