"""Curves in a terminal: a raster of braille dots, two columns and four rows to a character, with axes and a legend.

Pure functions from arrays to characters; whoever prints them chooses the colours by the series of each character.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmplay.stats.parse import Floats
from lmplay.stats.raster import BRAILLE, draw_line
from lmplay.stats.ticks import tick_label, ticks


@dataclass(frozen=True, kw_only=True)
class ChartSeries:
    name: str
    x: Floats
    y: Floats


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Rows of characters, top first, and for each character which series drew it last (-1: axes and blanks)."""

    rows: tuple[str, ...]
    owners: tuple[tuple[int, ...], ...]


def draw_chart(
    series: Sequence[ChartSeries], *, width: int, height: int, log_x: bool = False, log_y: bool = False
) -> Chart:
    """A chart of `width` x `height` characters, with labels on the left and below. Gaps (NaN) stay gaps."""
    scaled = [_scaled(one, log_x, log_y) for one in series]
    x_limits, y_limits = _limits([x for x, _ in scaled]), _limits([y for _, y in scaled], margin=0.03)
    y_ticks = [(tick, _log10(tick) if log_y else tick) for tick in _tick_values(y_limits, max(2, height // 3), log_y)]
    labels = {tick: tick_label(tick) for tick, _ in y_ticks}
    left = max([len(label) for label in labels.values()], default=1) + 1
    plot_width, plot_height = max(4, width - left - 1), max(2, height - 2)
    all_dots = np.zeros((plot_height * BRAILLE.rows, plot_width * BRAILLE.columns), np.bool_)
    owners = np.full((plot_height, plot_width), -1, np.int64)
    for index, (x, y) in enumerate(scaled):
        dots = draw_line(x, y, all_dots.shape, x_limits, y_limits)
        all_dots |= dots
        touched = dots.reshape(plot_height, BRAILLE.rows, plot_width, BRAILLE.columns).any(axis=(1, 3))
        owners[touched] = index
    codes = BRAILLE.pack(all_dots)
    by_row = {_row_of(place, y_limits, plot_height): labels[tick] for tick, place in y_ticks}
    rows, all_owners = [], []
    for row in range(plot_height):
        label = by_row.get(row, "")
        edge = "┤" if label else "│"
        body = "".join(map(chr, codes[row].tolist()))
        rows.append(f"{label:>{left}}{edge}{body}")
        all_owners.append((*([-1] * (left + 1)), *map(int, owners[row])))
    rows += _x_axis(x_limits, left, plot_width, log_x)
    all_owners += [tuple([-1] * len(row)) for row in rows[-2:]]
    return Chart(rows=tuple(rows), owners=tuple(all_owners))


def _scaled(series: ChartSeries, log_x: bool, log_y: bool) -> tuple[Floats, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(series.x > 0, np.log10(series.x), np.nan) if log_x else series.x
        y = np.where(series.y > 0, np.log10(series.y), np.nan) if log_y else series.y
    known = np.isfinite(x)
    return x[known], y[known]


def _limits(arrays: Sequence[Floats], margin: float = 0.0) -> tuple[float, float]:
    finite = [array[np.isfinite(array)] for array in arrays]
    joined = np.concatenate(finite) if finite else np.empty(0)
    if len(joined) == 0:
        return 0.0, 1.0
    low, high = float(joined.min()), float(joined.max())
    if low == high:
        return low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)


def _tick_values(limits: tuple[float, float], count: int, log: bool) -> list[float]:
    low, high = (10.0 ** limits[0], 10.0 ** limits[1]) if log else limits
    return ticks(low, high, count, log=log)


def _row_of(value: float, limits: tuple[float, float], height: int) -> int:
    share = (value - limits[0]) / (limits[1] - limits[0])
    return min(height - 1, max(0, int((1 - share) * height)))


def _x_axis(limits: tuple[float, float], left: int, width: int, log: bool) -> list[str]:
    axis, words = ["─"] * width, [" "] * (left + 1 + width)
    free = 0
    for tick in _tick_values(limits, max(2, width // 12), log):
        place = ((_log10(tick) if log else tick) - limits[0]) / (limits[1] - limits[0])
        column = min(width - 1, max(0, int(place * width)))
        label = tick_label(tick)
        start = min(max(0, left + 1 + column - len(label) // 2), left + 1 + width - len(label))
        if start < free:
            continue
        axis[column] = "┬"
        words[start : start + len(label)] = label
        free = start + len(label) + 1
    return [" " * left + "└" + "".join(axis), "".join(words)]


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf
