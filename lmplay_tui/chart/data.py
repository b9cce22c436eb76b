"""What a chart shows: curves over one axis, the borders between stages, and what happened along the way.

Screens make these; `prepare` and `picture` turn them into characters. No Textual here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmplay.stats.parse import Floats

EventKind = Literal["saved", "changed", "resumed", "paused", "warning", "died"]

MARKS = "●■▲◆✚★○□"
ASCII_MARKS = "o#^*+xO%"
COUNTED = ("step", "steps", "samples", "tokens")
"""Axes on which there is nothing between two whole numbers."""
TIMES = ("time", "seconds of training")
"""Axes in seconds."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line. x: (N,) ascending, y: (N,); a y that isn't finite is a gap."""

    name: str
    x: Floats
    y: Floats
    series: int = 0
    """Chooses the colour and, so that it can be told without colours, the mark."""
    kind: Literal["line", "points"] = "line"
    """`points` are few and each one counts (validations): every one gets a mark, none is smoothed."""
    every_row: bool = False
    """Known at each x: a y that isn't finite was none, rather than not logged."""

    def __post_init__(self) -> None:
        assert self.x.shape == self.y.shape, (self.x.shape, self.y.shape)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened at `x`; a sign for its kind stands on the axis."""

    x: float
    kind: EventKind
    text: str


@dataclass(frozen=True, kw_only=True)
class ChartData:
    """All of one chart. Curves that come later are drawn over those before them."""

    curves: tuple[Curve, ...] = ()
    x_name: str = "step"
    borders: tuple[tuple[float, str], ...] = ()
    """Where each stage but the first begins, with its name."""
    events: tuple[Event, ...] = ()

    @property
    def num_points(self) -> int:
        return sum(len(curve.x) for curve in self.curves)


def value_at(curve: Curve, x: float) -> tuple[float, float] | None:
    """(x, y) of the curve's finite point nearest to `x`; None when it has none."""
    known = np.isfinite(curve.y) & np.isfinite(curve.x)
    places, values = (curve.x, curve.y) if known.all() else (curve.x[known], curve.y[known])
    if len(places) == 0:
        return None
    after = int(np.searchsorted(places, x))
    if after == len(places) or (after > 0 and x - places[after - 1] <= places[after] - x):
        after -= 1
    return float(places[after]), float(values[after])
