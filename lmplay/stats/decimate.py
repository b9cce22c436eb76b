"""A long curve in as many columns as a screen has, without losing a spike: the extremes of each column stay."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

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
    chosen = _extremes(x, y, columns)
    return x[chosen], y[chosen]


def _extremes(x: Floats, y: Floats, columns: int) -> NDArray[np.int64]:
    """The places of each column's lowest and highest finite `y`, ascending. A column without one is a gap: one of its
    points stays to show it."""
    known, order = np.isfinite(x), None
    if not known.all() or (x[1:] < x[:-1]).any():
        places = np.flatnonzero(known)
        order = places[np.argsort(x[places], kind="stable")]
        x, y = x[order], y[order]
    if len(x) == 0:
        return np.empty(0, np.int64)
    # Of ascending x a column is a slice; looking into each is ten times as fast as sorting a million points.
    borders = np.searchsorted(x, np.linspace(x[0], x[-1], columns + 1)[1:-1])
    starts = np.unique(np.r_[0, borders, len(x)]).tolist()
    finite = np.isfinite(y)
    low, high = (y, y) if finite.all() else (np.where(finite, y, np.inf), np.where(finite, y, -np.inf))
    found = [
        start + int(at)
        for start, end in itertools.pairwise(starts)
        for at in (low[start:end].argmin(), high[start:end].argmax())
    ]
    chosen = np.unique(np.array(found, np.int64))
    return chosen if order is None else np.sort(order[chosen])
