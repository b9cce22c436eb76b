"""Keeps the process as small as what it holds, over an evening."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

from rich import cells
from rich.segment import Segment
from rich.style import Style
from textual import _segment_tools
from textual._styles_cache import StylesCache
from textual.filter import ANSIToTruecolor
from textual.geometry import Region
from textual.strip import Strip

_ARENA_MAX = -8
"""`M_ARENA_MAX` of glibc's malloc.h, mallopt(3)."""
TIDY_SECONDS = 30.0
"""What is filled in between decides how much there ever is, and freed memory does not all go back."""
_KEEP_WHAT_WAS_DRAWN: tuple[type | ModuleType, ...] = (
    Strip,
    Style,
    Segment,
    Region,
    ANSIToTruecolor,
    cells,
    _segment_tools,
)
"""Their caches have room for what was drawn hours ago. `Strip.render_ansi` for one remembers 16,384 styles, and each
piece of each line of a text has its own, since its place in the text is part of it: ten megabytes within an hour."""


def share_one_arena() -> bool:
    """Let all threads allocate from one place; False where the C library knows no such thing.

    glibc gives threads arenas of their own. Here one thread after another makes arrays that are a row longer than the
    last ones, and each arena keeps the holes that they leave: some 10 MiB more, and growing.
    """
    return _ask_malloc("mallopt", _ARENA_MAX, 1)


def _ask_malloc(function: str, *arguments: int) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        return bool(getattr(ctypes.CDLL(None), function)(*arguments))
    except (AttributeError, OSError):
        return False  # another C library


def forget_drawings() -> None:
    """Empty Textual's cache of a thousand drawn widgets, which keeps those of closed dialogs and toasts too."""
    StylesCache.get_inner_outer.cache_clear()


def tidy() -> None:
    """Empty what Textual and Rich fill for hours. What is still needed is worked out anew within a frame."""
    forget_drawings()
    for clear in _clearings():
        clear()
    # What lies free between what is in use goes back to the system too, within a millisecond.
    _ask_malloc("malloc_trim", 0)


def _clearings() -> Iterator[Callable[[], None]]:
    for owner in _KEEP_WHAT_WAS_DRAWN:
        for function in vars(owner).values():
            clear = getattr(getattr(function, "__func__", function), "cache_clear", None)  # of class methods too
            if clear is not None:
                yield clear
