"""A long curve in as many columns as a screen has, without losing a spike: the extremes of each column stay."""

from __future__ import annotations

import numpy as np

from lmplay.stats.parse import Floats


def envelope(x: Floats, y: Floats, columns: int, limits: tuple[float, float]) -> tuple[Floats, Floats]:
    """(lowest, highest) of the finite `y` in each of `columns` equal parts of `limits`; NaN where there are none.

    x: (N,), y: (N,) -> two arrays (columns,). Points outside of the limits are left out.
    """
    low, high = np.full(columns, np.nan), np.full(columns, np.nan)
    start, end = limits
    if not end > start:
        end = start + 1.0
    inside = np.isfinite(y) & (x >= start) & (x <= end)
    if not inside.any():
        return low, high
    place = np.minimum(((x[inside] - start) * (columns / (end - start))).astype(np.int64), columns - 1)
    values = y[inside]
    np.fmin.at(low, place, values)
    np.fmax.at(high, place, values)
    return low, high


def decimate(x: Floats, y: Floats, columns: int) -> tuple[Floats, Floats]:
    """At most 2 x `columns` of the points, among them the extremes of every column; gaps (NaN) stay gaps.

    Points are chosen, never made up, and keep their order.
    """
    if len(x) <= 2 * columns:
        return x, y
    known = np.flatnonzero(np.isfinite(x))
    if len(known) == 0:
        return x[:0], y[:0]
    start, end = float(x[known].min()), float(x[known].max())
    place = np.zeros(len(x), np.int64)
    if end > start:
        place[known] = np.minimum((x[known] - start) * (columns / (end - start)), columns - 1).astype(np.int64)
    # Within a column by value; so its first is the lowest, its last the highest, and NaN, sorted last, the gap.
    order = np.lexsort((y, place))
    sorted_place, bad = place[order], ~np.isfinite(y[order])
    first = np.flatnonzero(np.r_[True, sorted_place[1:] != sorted_place[:-1]])
    counts = np.diff(np.r_[first, len(order)])
    finite = np.add.reduceat((~bad).astype(np.int64), first)
    highest = first + np.maximum(finite - 1, 0)
    chosen = np.unique(np.r_[order[first], order[highest]])
    # A column without one finite value is a gap: one of its points stays to show it.
    assert len(chosen) <= 2 * len(counts)
    return x[chosen], y[chosen]
