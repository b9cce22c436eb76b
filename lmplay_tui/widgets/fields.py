"""One-line inputs: a filter over a list, and the plain field of dialogs. No border, no blinking."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.widgets import Input


class Field(Input):
    """A compact input whose cursor doesn't blink: an idle screen sends nothing."""

    DEFAULT_CSS = """
    Field { border: none; height: 1; padding: 0 1; background: $surface; width: 1fr; }
    Field:focus { border: none; background: $panel; }
    Field.-invalid, Field.-invalid:focus { border: none; color: $error; }
    """

    def __init__(
        self,
        value: str = "",
        *,
        placeholder: str = "",
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(value, placeholder=placeholder, id=id, classes=classes, select_on_focus=False, compact=True)
        self.cursor_blink = False
        self.told = ""
        """What this field is for, as the help says it."""


class FilterField(Field):
    """Filters as one types. Enter goes back to the list, escape clears and goes back; hidden while empty and left."""

    HELP = "A filter. Enter keeps it and goes back to the list; escape clears it."
    DEFAULT_CSS = """
    FilterField { display: none; }
    FilterField.-shown { display: block; }
    """

    @dataclass
    class Left(Message):
        field: FilterField

    def open(self) -> None:
        self.add_class("-shown")
        self.focus()

    def show_value(self) -> None:
        """Be seen where there is something to see."""
        self.set_class(bool(self.value), "-shown")

    def on_blur(self) -> None:
        self.show_value()

    async def _on_key(self, event: events.Key) -> None:
        if event.key in ("enter", "escape", "down"):
            event.stop()
            event.prevent_default()
            if event.key == "escape":
                self.value = ""
            self.post_message(self.Left(self))
            return
        await super()._on_key(event)
