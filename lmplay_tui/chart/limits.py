"""Ends of axes that are round and stay where they are while the data grows: a chart whose axes jump can't be read."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from lmplay.stats.parse import Floats
from lmplay_tui.chart.view import Limits

_KEEP_FILL = 0.55
"""Limits stay as long as the data fills this share of them."""


def span_of(arrays: Iterable[Floats], *, tail: float = 0.0) -> Limits | None:
    """Lowest and highest finite value, leaving out the share `tail` at each end of each array; None without any."""
    low, high = math.inf, -math.inf
    for array in arrays:
        finite = array[np.isfinite(array)]
        if len(finite) == 0:
            continue
        ends = np.quantile(finite, (tail, 1 - tail)) if tail and len(finite) > 20 else (finite.min(), finite.max())
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return (low, high) if low <= high else None


def quantised(span: Limits, *, parts: int, previous: Limits | None = None) -> Limits:
    """Round limits around `span`, in steps of about a `parts`-th of it; `previous` where they still fit well."""
    low, high = span
    if previous is not None and previous[0] <= low and high <= previous[1]:
        size = previous[1] - previous[0]
        if high - low >= _KEEP_FILL * size:
            return previous
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    step = round_step((high - low) / parts)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def round_step(size: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(power * factor for factor in (1.0, 2.0, 5.0, 10.0) if power * factor >= size * (1 - 1e-9))
