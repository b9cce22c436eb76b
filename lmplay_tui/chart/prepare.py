"""From curves of any length to layers that fit a screen: the part in view, smoothed first, then decimated.

The one costly step of a chart: for a long run the widget calls it in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmplay.stats.decimate import decimate
from lmplay.stats.parse import Floats
from lmplay.stats.smoothing import smooth
from lmplay_tui.chart.data import ChartData, Curve
from lmplay_tui.chart.limits import quantised, span_of
from lmplay_tui.chart.view import Limits, View

_X_PARTS, _Y_PARTS = 20, 8
_RAW_TAIL = 0.01
"""Share of raw points at either end that may lie outside of automatic limits: a spike doesn't flatten the curve."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Points to draw, in the units of the axes (base 10 logarithms where an axis is logarithmic)."""

    x: Floats
    y: Floats
    series: int
    dim: bool = False
    marks: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What there is to draw, and the limits (in units of the axes) that show it."""

    layers: tuple[Layer, ...]
    x_limits: Limits
    y_limits: Limits
    has_values: bool


def prepare(data: ChartData, view: View, columns: int, *, previous: Prepared | None = None) -> Prepared:
    """The layers of `data` for a plot that is `columns` dots wide; limits near `previous` are kept."""
    x_limits = _x_limits(data, view, previous)
    layers = [layer for curve in data.curves for layer in _layers(curve, view, columns, x_limits)]
    # Dim layers first: the smoothed lines lie over all raw ones.
    layers.sort(key=lambda layer: not layer.dim)
    found = _y_span(layers)
    if view.y_window is not None:
        y_limits = _scaled_window(view.y_window, log=view.log_y)
    else:
        y_limits = quantised(found or (0.0, 1.0), parts=_Y_PARTS, previous=previous.y_limits if previous else None)
    return Prepared(layers=tuple(layers), x_limits=x_limits, y_limits=y_limits, has_values=found is not None)


def scaled(values: Floats, *, log: bool) -> Floats:
    """Values as an axis sees them; what a logarithmic one can't show is NaN."""
    if not log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log10(values), np.nan)


def _layers(curve: Curve, view: View, columns: int, limits: Limits) -> list[Layer]:
    known = np.isfinite(curve.x)
    x, y = (curve.x, curve.y) if known.all() else (curve.x[known], curve.y[known])
    if (x[1:] < x[:-1]).any():
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    x = scaled(x, log=view.log_x)
    if curve.kind == "points":
        inside = _inside(x, limits)
        return [Layer(x=x[inside], y=scaled(y[inside], log=view.log_y), series=curve.series, marks=True)]
    span = view.smoothing_for(len(y))
    # Over all rows, before anything is cut away: a zoomed line is the same line.
    smoothed = smooth(y, span) if span > 1 else None
    inside = _inside(x, limits)
    found = []
    for values, dim in ((y, smoothed is not None), (smoothed, False)):
        if values is not None:
            shown_x, shown_y = decimate(x[inside], scaled(values[inside], log=view.log_y), 2 * columns)
            found.append(Layer(x=shown_x, y=shown_y, series=curve.series, dim=dim))
    return found


def _inside(x: Floats, limits: Limits) -> slice:
    """The points within the limits and the one beyond each end, to which the line goes on."""
    ascending = np.where(np.isnan(x), -np.inf, x)  # a logarithm of 0 comes first
    first = int(np.searchsorted(ascending, limits[0], side="left"))
    last = int(np.searchsorted(ascending, limits[1], side="right"))
    return slice(max(0, first - 1), last + 1)


def _x_limits(data: ChartData, view: View, previous: Prepared | None) -> Limits:
    if view.x_window is not None:
        return _scaled_window(view.x_window, log=view.log_x)
    ends = [curve.x[curve.x > 0] if view.log_x else curve.x for curve in data.curves]
    found = span_of(scaled(x, log=view.log_x) for x in ends)
    low, high = quantised(found or (0.0, 1.0), parts=_X_PARTS, previous=previous.x_limits if previous else None)
    # Around a single place there is room on both sides, but not before the beginning.
    return (max(low, 0.0) if found is not None and found[0] >= 0 and not view.log_x else low), high


def _y_span(layers: list[Layer]) -> Limits | None:
    bright = span_of(layer.y for layer in layers if not layer.dim)
    dim = span_of((layer.y for layer in layers if layer.dim), tail=_RAW_TAIL)
    known = [span for span in (bright, dim) if span is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _scaled_window(window: Limits, *, log: bool) -> Limits:
    low, high = scaled(np.array(window), log=log)
    if not np.isfinite(high):
        return 0.0, 1.0
    return (float(low) if np.isfinite(low) else float(high) - 6.0), float(high)
