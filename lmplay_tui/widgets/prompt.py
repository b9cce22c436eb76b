"""Where one writes to a model, over several lines; which key sends is the screen's to say."""

from __future__ import annotations

from textual import events
from textual.binding import Binding
from textual.widgets import TextArea

_OURS = frozenset({"f6", "f7"})
"""Keys of the text area that the screen has another use for; selecting works with shift and the arrows."""


class Prompt(TextArea, inherit_bindings=False):
    HELP = "Write here. Enter sends, alt+enter or f10 begins a new line, escape goes to the conversation above."
    BINDINGS = [  # noqa: RUF012 - as Textual has it
        binding for binding in TextArea.BINDINGS if not (isinstance(binding, Binding) and binding.key in _OURS)
    ]
    DEFAULT_CSS = """
    Prompt { height: 4; border: none; padding: 0 1; background: $surface; }
    Prompt:focus { border: none; background: $panel; }
    """

    def _on_key(self, event: events.Key) -> None:  # type: ignore[override]
        if event.key == "enter":
            event.prevent_default()  # no new line: it goes on to the screen, whose keys say what it does
