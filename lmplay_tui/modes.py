"""The screens by the name of their mode; none but the first is imported before the first frame, so that it is early."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmplay_tui.actions import SCREENS

if TYPE_CHECKING:
    from textual.screen import Screen

_CLASSES = {
    # mode: (module of lmplay_tui.screens, class)
    "experiments": ("experiments", "ExperimentsScreen"),
    "runs": ("runs", "RunsScreen"),
    "run": ("run", "RunScreen"),
    "compare": ("compare", "CompareScreen"),
    "chat": ("chat", "ChatScreen"),
    "data": ("data", "DataScreen"),
}
assert {"launch", *_CLASSES} == {mode for mode, _, _ in SCREENS}


def _maker(module: str, name: str) -> Callable[[], Screen[Any]]:
    def make() -> Screen[Any]:
        screen: Screen[Any] = getattr(import_module(f"lmplay_tui.screens.{module}"), name)()
        return screen

    return make


MODES: dict[str, Callable[[], Screen[Any]]] = {mode: _maker(*where) for mode, where in _CLASSES.items()}


def import_run_screens() -> None:
    """What shows runs: the first look at one then takes no longer than the next. Called in a thread."""
    for mode in ("runs", "run", "compare"):
        import_module(f"lmplay_tui.screens.{_CLASSES[mode][0]}")
