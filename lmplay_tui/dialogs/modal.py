"""What every dialog is: closed once, whatever keys are still on their way to it."""

from __future__ import annotations

from typing import TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen

from lmplay_tui.actions import bindings_for

Result = TypeVar("Result")


class Modal(ModalScreen[Result]):
    """Closing one that is closed already would close what was below it: another dialog, or the last screen there is."""

    BINDINGS = bindings_for("modal")  # Textual asks no further than a dialog: keys that hold everywhere end here

    def dismiss(self, result: Result | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_active else AwaitComplete()
