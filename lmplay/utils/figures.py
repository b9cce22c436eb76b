"""Numbers as people read them in a terminal: counts, bytes, seconds, losses, and a curve in one line."""

from __future__ import annotations

import math
from collections.abc import Iterable

_BARS = "▁▂▃▄▅▆▇█"


def format_count(value: float | None) -> str:
    """`950`, `12.3k`, `1.25M`, `3.10B`; `-` for none."""
    if value is None or not math.isfinite(value):
        return "-"
    for limit, unit, digits in ((1e9, "B", 2), (1e6, "M", 2), (1e4, "k", 1)):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.{digits}f}{unit}"
    return f"{value:,.0f}"


def format_bytes(value: float | None) -> str:
    """In binary units, as the system's own tools count memory."""
    if value is None:
        return "-"
    size = float(value)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB" if size < 1024 else f"{size / 1024:.2f} TiB"


def format_seconds(value: float | None) -> str:
    """`8 s`, `3 min 20 s`, `5 h 07 min`, `2 d 4 h`."""
    if value is None or not math.isfinite(value):
        return "-"
    seconds = max(0, round(value))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def format_loss(value: object) -> str:
    """Four decimals; `NaN` and infinities as words; `-` for none."""
    if not isinstance(value, int | float):
        return "-"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    return f"{value:.4f}"


def sparkline(values: Iterable[float], width: int) -> str:
    """The course of `values` in one line of at most `width` blocks, each the mean of its share; gaps for NaN."""
    numbers = list(values)
    width = min(width, len(numbers))
    if not width:
        return ""
    means: list[float] = []
    for column in range(width):
        share = numbers[column * len(numbers) // width : (column + 1) * len(numbers) // width]
        finite = [value for value in share if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else math.nan)
    known = [mean for mean in means if not math.isnan(mean)]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if math.isnan(mean) else _BARS[round((mean - low) * scale)] for mean in means)
