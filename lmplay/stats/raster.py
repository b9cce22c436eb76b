"""A curve as dots: where a line through points crosses each column of a screen, and dots as characters.

Pure functions under the chart of `lmplay plot` and that of the workbench.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmplay.stats.decimate import envelope
from lmplay.stats.parse import Floats

Dots = NDArray[np.bool_]
Codes = NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """How `columns` x `rows` dots become one character: `characters[mask]`, with bit `row * columns + column` a dot."""

    name: str
    columns: int
    rows: int
    characters: str

    @cached_property
    def codes(self) -> Codes:
        return np.array([ord(character) for character in self.characters], np.uint32)

    def pack(self, dots: Dots) -> Codes:
        """Dots (H * rows, W * columns) -> code points (H, W)."""
        height, width = dots.shape[0] // self.rows, dots.shape[1] // self.columns
        cells = dots.reshape(height, self.rows, width, self.columns).swapaxes(1, 2)  # (H, W, rows, columns)
        weights = 1 << np.arange(self.rows * self.columns)
        masks = cells.reshape(height, width, -1).astype(np.int64) @ weights  # (H, W)
        return self.codes[masks]


def _braille() -> str:
    # Unicode numbers the dots down the left column, down the right one, and the two at the bottom last.
    bits = (0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80)
    masks = (sum(bit for place, bit in enumerate(bits) if mask >> place & 1) for mask in range(256))
    return " " + "".join(chr(0x2800 + mask) for mask in masks)[1:]


BRAILLE = Glyphs(name="braille", columns=2, rows=4, characters=_braille())
BLOCKS = Glyphs(name="blocks", columns=2, rows=2, characters=" ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█")
ASCII = Glyphs(name="ascii", columns=1, rows=3, characters=" '-:.:||")


def line_extents(x: Floats, y: Floats, columns: int, limits: tuple[float, float]) -> tuple[Floats, Floats]:
    """(lowest, highest) value of the line through the points in each of `columns` equal parts of `limits`.

    x: (N,) ascending, y: (N,) -> two arrays (columns,); NaN where no line is. A value that isn't finite breaks it.
    """
    low, high = envelope(x, y, columns, limits)
    known = np.flatnonzero(np.isfinite(y) & np.isfinite(x))
    if len(known) < 2:
        return low, high
    start, end = limits
    edges = np.linspace(start, end if end > start else start + 1.0, columns + 1)
    places, values = x[known], y[known]
    # The piece of the line that each edge lies on: from point number `piece` to the next.
    piece = np.clip(np.searchsorted(places, edges, side="right") - 1, 0, len(known) - 2)
    on_line = (edges >= places[0]) & (edges <= places[-1]) & (np.diff(known)[piece] == 1)
    at_edges = np.where(on_line, np.interp(edges, places, values), np.nan)
    low = np.fmin(low, np.fmin(at_edges[:-1], at_edges[1:]))
    high = np.fmax(high, np.fmax(at_edges[:-1], at_edges[1:]))
    return low, high


def fill_dots(low: Floats, high: Floats, rows: int, limits: tuple[float, float]) -> Dots:
    """Dots (rows, columns), the top row first: each column filled from `low` to `high`; outside of `limits` nothing."""
    bottom, top = limits
    scale = (rows - 1) / (top - bottom) if top > bottom else 0.0
    drawn = np.isfinite(low) & np.isfinite(high) & (high >= bottom) & (low <= top)
    with np.errstate(invalid="ignore"):
        first = np.rint((top - np.minimum(high, top)) * scale)
        last = np.rint((top - np.maximum(low, bottom)) * scale)
    first, last = np.where(drawn, first, 1.0), np.where(drawn, last, 0.0)
    row = np.arange(rows)[:, None]
    dots: Dots = (row >= first) & (row <= last)  # (rows, columns)
    return dots


def draw_line(
    x: Floats, y: Floats, shape: tuple[int, int], x_limits: tuple[float, float], y_limits: tuple[float, float]
) -> Dots:
    """The line through the points as dots of `shape` (rows, columns)."""
    low, high = line_extents(x, y, shape[1], x_limits)
    return fill_dots(low, high, shape[0], y_limits)
