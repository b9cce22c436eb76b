"""Curves in a terminal: a raster of braille dots, two columns and four rows to a character, with axes and a legend.

Pure functions from arrays to characters; whoever prints them chooses the colours by the series of each character.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmplay.stats.decimate import envelope
from lmplay.stats.parse import Floats
from lmplay.stats.ticks import tick_label, ticks

# The bit of each dot of a braille character, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


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
    cells = np.zeros((plot_height, plot_width), np.uint8)
    owners = np.full((plot_height, plot_width), -1, np.int64)
    for index, (x, y) in enumerate(scaled):
        dots = _raster(x, y, plot_width * 2, plot_height * 4, x_limits, y_limits)
        for row in range(4):
            for column in range(2):
                hit = dots[row::4, column::2]
                cells[hit] |= _DOTS[row][column]
                owners[hit] = index
    by_row = {_row_of(place, y_limits, plot_height): labels[tick] for tick, place in y_ticks}
    rows, all_owners = [], []
    for row in range(plot_height):
        label = by_row.get(row, "")
        edge = "┤" if label else "│"
        body = "".join(chr(0x2800 + int(cell)) if cell else " " for cell in cells[row])
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


def _raster(
    x: Floats, y: Floats, columns: int, rows: int, x_limits: tuple[float, float], y_limits: tuple[float, float]
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Dots (rows, columns): each column filled from its lowest to its highest value, neighbours joined."""
    dots = np.zeros((rows, columns), np.bool_)
    low, high = envelope(x, y, columns, x_limits)
    scale = (rows - 1) / (y_limits[1] - y_limits[0])
    tops = (rows - 1) - np.round((high - y_limits[0]) * scale)
    bottoms = (rows - 1) - np.round((low - y_limits[0]) * scale)
    gaps = x[~np.isfinite(y)]
    filled = np.flatnonzero(np.isfinite(tops))
    for column in filled:
        dots[int(tops[column]) : int(bottoms[column]) + 1, column] = True
    width = (x_limits[1] - x_limits[0]) / columns
    for before, after in itertools.pairwise(map(int, filled)):
        start, end = x_limits[0] + (before + 1) * width, x_limits[0] + after * width
        if after > before + 1 and np.any((gaps >= start) & (gaps <= end)):
            continue
        _join(dots, before, after, (tops[before], bottoms[before]), (tops[after], bottoms[after]))
    return dots


def _join(
    dots: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    before: int,
    after: int,
    one: tuple[float, float],
    other: tuple[float, float],
) -> None:
    """The line between two filled columns, from the nearest ends of their fillings."""
    middle_one, middle_other = sum(one) / 2, sum(other) / 2
    if after == before + 1:
        # Touching columns need no line between; only a vertical gap is closed, in the later column.
        top, bottom = min(one[1], other[1]), max(one[0], other[0])
        if bottom > top:
            dots[int(top) : int(bottom) + 1, after] = True
        return
    for column in range(before + 1, after):
        share = (column - before) / (after - before)
        dots[round(middle_one + (middle_other - middle_one) * share), column] = True


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
