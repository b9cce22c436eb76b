"""Keeps the process as small as what it holds, over an evening."""

from __future__ import annotations

import sys

from textual._styles_cache import StylesCache
from textual.geometry import Region

_ARENA_MAX = -8
"""`M_ARENA_MAX` of glibc's malloc.h, mallopt(3)."""
TIDY_SECONDS = 120.0


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
    """Empty what Textual fills for hours: besides drawings, how regions of the screen relate.

    Tens of thousands of these are kept, and each stretch of a chart that was ever sent is another. What is still
    needed is worked out anew within a frame.
    """
    forget_drawings()
    for method in vars(Region).values():
        clear = getattr(method, "cache_clear", None)
        if clear is not None:
            clear()
    # What lies free between what is in use goes back to the system too, within a millisecond.
    _ask_malloc("malloc_trim", 0)
