"""Keeps the process as small as what it holds, over an evening."""

from __future__ import annotations

import sys

_ARENA_MAX = -8
"""`M_ARENA_MAX` of glibc's malloc.h, mallopt(3)."""


def share_one_arena() -> bool:
    """Let all threads allocate from one place; False where the C library knows no such thing.

    glibc gives threads arenas of their own. Here one thread after another makes arrays that are a row longer than the
    last ones, and each arena keeps the holes that they leave: some 10 MiB more, and growing.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        return bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, 1))
    except (AttributeError, OSError):
        return False  # another C library
