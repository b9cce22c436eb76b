"""Figures in the width of a table's column, and the sign and ink of each state of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lmplay.utils.figures import format_seconds
from lmplay_tui.lines import Line, line

STATE_SIGNS: Mapping[str, tuple[str, str, str]] = {
    # state: (sign, sign in ASCII, ink)
    "queued": ("◌", "o", "muted"),
    "starting": ("◍", "~", "primary"),
    "running": ("●", "*", "good"),
    "pausing": ("◐", "=", "warn"),
    "paused": ("‖", "=", "warn"),
    "stopping": ("◐", "x", "warn"),
    "done": ("✓", "+", "primary"),
    "stopped": ("■", "x", "muted"),
    "failed": ("✗", "X", "bad"),
    "lost": ("?", "?", "bad"),
    "broken": ("!", "!", "bad"),
}


def state_sign(state: str, *, ascii_only: bool = False) -> tuple[str, str]:
    """(sign, ink) of a state."""
    sign, plain_sign, ink = STATE_SIGNS.get(state, ("·", ".", "muted"))
    return (plain_sign if ascii_only else sign), ink


def short_seconds(value: float | None) -> str:
    """`8s`, `3m20s`, `5h07m`, `2d4h`; nothing for none."""
    if value is None or not math.isfinite(value):
        return ""
    return format_seconds(value).replace(" min", "m").replace(" ", "")


def short_number(value: object) -> str:
    """Four digits that matter, in as few characters as that takes; `NaN` and infinities as words."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, int) and abs(value) < 100_000:
        return str(value)
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.4g}"


def loss_figure(value: float | None) -> Line:
    """A loss for a table; what is not a number is seen from afar."""
    if value is None:
        return ()
    if not math.isfinite(value):
        return line(("NaN" if math.isnan(value) else "inf", "bold bad"))
    return line(f"{value:.4f}")


def progress_bar(fraction: float | None, width: int, *, ascii_only: bool = False, ink: str = "primary") -> Line:
    """A bar of `width` cells in eighths of a cell, over a track that shows its length."""
    if fraction is None or not math.isfinite(fraction):
        return line((("." if ascii_only else "─") * width, "faint"))
    fraction = min(1.0, max(0.0, fraction))
    if ascii_only:
        full = round(fraction * width)
        return line(("#" * full, ink), ("." * (width - full), "faint"))
    half_cells = round(fraction * width * 2)
    bar = "━" * (half_cells // 2) + ("╸" if half_cells % 2 else "")
    return line((bar, ink), ("─" * (width - len(bar)), "faint"))


def meter(share: float | None, width: int, *, ascii_only: bool = False) -> Line:
    """How much of something is in use: green, then yellow, then red."""
    if share is None or not math.isfinite(share):
        return progress_bar(None, width, ascii_only=ascii_only)
    ink = "good" if share < 0.7 else "warn" if share < 0.9 else "bad"
    return progress_bar(share, width, ascii_only=ascii_only, ink=ink)
