"""A chart as characters: a grid of code points, and beside it the ink of each, which the widget turns into colours.

Everything is one array, so that a widget can tell which rows changed and send only those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len

from lmplay.stats.raster import ASCII, BLOCKS, BRAILLE, Codes, Glyphs, draw_line
from lmplay.stats.ticks import tick_label, ticks, time_label, time_ticks
from lmplay_tui.chart.data import ASCII_MARKS, COUNTED, MARKS, TIMES, ChartData, EventKind
from lmplay_tui.chart.prepare import Layer, Prepared
from lmplay_tui.chart.view import Limits, View

LABEL_WIDTH = 6
SECOND_HALF = 0
"""The code in the second cell of a letter that takes two."""
_FIRST_WIDE = 0x1100
"""No letter of a lower code is two cells wide."""
_MARK_EVERY = 18
"""Columns between the marks of a long line, when there are several to tell apart."""


class Ink(IntEnum):
    """What a character belongs to. From `SERIES` on: 2 * series, and one more where it is dim."""

    NONE = 0
    AXIS = 1
    LABEL = 2
    GRID = 3
    BORDER = 4
    CURSOR = 5
    EVENT = 6
    SERIES = 16


def letters(codes: Codes) -> str:
    """(W,) code points as the text that fills W cells."""
    return "".join(map(chr, codes[codes != SECOND_HALF].tolist()))


def ink_of(series: int, *, dim: bool = False) -> int:
    return Ink.SERIES + 2 * series + dim


@dataclass(frozen=True)
class Signs:
    """The characters of one way to draw: braille, blocks, or ASCII only."""

    glyphs: Glyphs
    marks: str
    vertical: str
    horizontal: str
    corner: str
    tick_left: str
    tick_below: str
    grid: str
    border: str
    events: Mapping[EventKind, str]


_EVENTS: dict[EventKind, str] = {
    "saved": "◆",
    "changed": "✎",
    "resumed": "↻",
    "paused": "‖",
    "warning": "▲",
    "died": "✗",
}
_ASCII_EVENTS: dict[EventKind, str] = {
    "saved": "#",
    "changed": "~",
    "resumed": "@",
    "paused": "=",
    "warning": "!",
    "died": "X",
}

SIGNS = {
    "braille": Signs(BRAILLE, MARKS, "│", "─", "╰", "┤", "┬", "┄", "┊", _EVENTS),
    "blocks": Signs(BLOCKS, MARKS, "│", "─", "└", "┤", "┬", "·", "┊", _EVENTS),
    "ascii": Signs(ASCII, ASCII_MARKS, "|", "-", "+", "+", "+", ".", ":", _ASCII_EVENTS),
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """codes: (H, W) code points; inks: (H, W). `plot` is the part between the axes."""

    codes: Codes
    inks: NDArray[np.int16]
    left: int
    plot_width: int
    plot_height: int
    x_limits: Limits
    y_limits: Limits
    log_x: bool

    def text(self) -> str:
        return "\n".join(letters(row).rstrip() for row in self.codes)

    def x_of(self, column: int) -> float:
        """The x (in the units of the data) in the middle of a column of the whole picture."""
        share = min(1.0, max(0.0, (column - self.left + 0.5) / self.plot_width))
        place = self.x_limits[0] + share * (self.x_limits[1] - self.x_limits[0])
        return 10.0**place if self.log_x else place

    @property
    def x_window(self) -> Limits:
        low, high = self.x_limits
        return (10.0**low, 10.0**high) if self.log_x else (low, high)


def plot_columns(width: int) -> int:
    """How many dots wide the plot of a chart of `width` characters may be at most."""
    return max(4, width - LABEL_WIDTH - 1) * 2


def draw(
    prepared: Prepared, data: ChartData, view: View, width: int, height: int, *, style: str = "braille"
) -> Picture:
    """The whole picture: labels on the left, an axis below with its labels, the plot between them."""
    signs = SIGNS[style]
    left, plot_width, plot_height = LABEL_WIDTH + 1, max(2, width - LABEL_WIDTH - 1), max(1, height - 2)
    codes = np.full((plot_height + 2, left + plot_width), ord(" "), np.uint32)
    inks = np.zeros(codes.shape, np.int16)
    canvas = _Canvas(codes, inks, left, plot_width, plot_height, prepared, signs)
    canvas.y_axis(log=view.log_y)
    canvas.x_axis(data.x_name, log=view.log_x)
    for x, name in data.borders:
        canvas.border(_place(x, view.log_x), name)
    if view.cursor is not None:
        canvas.vertical(_place(view.cursor, view.log_x), signs.vertical, Ink.CURSOR)
    several = len({layer.series for layer in prepared.layers}) > 1
    for layer in prepared.layers:
        canvas.layer(layer)
    for layer in prepared.layers:
        canvas.marks(layer, several=several)
    for event in data.events:
        canvas.event(_place(event.x, view.log_x), signs.events[event.kind])
    canvas.mend_halves()
    return Picture(
        codes=codes,
        inks=inks,
        left=left,
        plot_width=plot_width,
        plot_height=plot_height,
        x_limits=prepared.x_limits,
        y_limits=prepared.y_limits,
        log_x=view.log_x,
    )


class _Canvas:
    """The arrays while they are drawn on; places are in the units of the axes."""

    def __init__(
        self,
        codes: Codes,
        inks: NDArray[np.int16],
        left: int,
        width: int,
        height: int,
        prepared: Prepared,
        signs: Signs,
    ) -> None:
        self.codes, self.inks, self.left, self.width, self.height = codes, inks, left, width, height
        self.x_limits, self.y_limits = prepared.x_limits, prepared.y_limits
        self.signs = signs

    def y_axis(self, *, log: bool) -> None:
        self.codes[: self.height, self.left - 1] = ord(self.signs.vertical)
        self.inks[: self.height, self.left - 1] = Ink.AXIS
        for value in _tick_values(self.y_limits, max(2, self.height // 3), log=log):
            row = self.row(_place(value, log))
            if row is None:
                continue
            label = tick_label(value)[:LABEL_WIDTH]
            self.write(row, LABEL_WIDTH - len(label), label, Ink.LABEL)
            self.codes[row, self.left - 1] = ord(self.signs.tick_left)
            self.codes[row, self.left :] = ord(self.signs.grid)
            self.inks[row, self.left :] = Ink.GRID

    def x_axis(self, name: str, *, log: bool) -> None:
        line, words = self.height, self.height + 1
        self.codes[line, self.left :] = ord(self.signs.horizontal)
        self.codes[line, self.left - 1] = ord(self.signs.corner)
        self.inks[line, self.left - 1 :] = Ink.AXIS
        free, count = 0, max(2, self.width // 12)
        is_time, whole = name in TIMES, name in COUNTED
        values = (
            time_ticks(*self.x_limits, count) if is_time and not log else _tick_values(self.x_limits, count, log=log)
        )
        for value in values:
            column = self.column(_place(value, log))
            label = time_label(value) if is_time else tick_label(value)
            if column is None or (whole and value != round(value)):
                continue
            start = min(max(0, column - len(label) // 2), self.left + self.width - len(label))
            if start < free:
                continue
            self.codes[line, column] = ord(self.signs.tick_below)
            self.write(words, start, label, Ink.LABEL)
            free = start + len(label) + 2

    def border(self, x: float, name: str) -> None:
        self.vertical(x, self.signs.border, Ink.BORDER)
        column = self.column(x)
        if column is not None and column + 1 < self.left + self.width:
            self.write(0, column + 1, name[: self.left + self.width - column - 1], Ink.BORDER)

    def vertical(self, x: float, sign: str, ink: int) -> None:
        column = self.column(x)
        if column is not None:
            self.codes[: self.height, column] = ord(sign)
            self.inks[: self.height, column] = ink

    def layer(self, layer: Layer) -> None:
        glyphs = self.signs.glyphs
        shape = (self.height * glyphs.rows, self.width * glyphs.columns)
        packed = glyphs.pack(draw_line(layer.x, layer.y, shape, self.x_limits, self.y_limits))
        drawn = packed != ord(" ")
        plot = (slice(0, self.height), slice(self.left, self.left + self.width))
        # A character has one colour: what comes later takes it whole, so that a line stays thin over the raw points.
        self.codes[plot][drawn] = packed[drawn]
        self.inks[plot][drawn] = ink_of(layer.series, dim=layer.dim)

    def marks(self, layer: Layer, *, several: bool) -> None:
        if layer.dim or not (layer.marks or several):
            return
        known = np.flatnonzero(np.isfinite(layer.x) & np.isfinite(layer.y))
        mark, last = ord(self.signs.marks[layer.series % len(self.signs.marks)]), -math.inf
        # Lines of different series get their marks in different places, or the last one would cover all.
        apart = 3 if layer.marks else _MARK_EVERY
        offset = 0 if layer.marks else layer.series * 5 % _MARK_EVERY
        for index in known.tolist():
            column, row = self.column(float(layer.x[index])), self.row(float(layer.y[index]))
            if column is None or row is None or column - last < apart:
                continue
            if not layer.marks and (column - self.left + offset) % _MARK_EVERY > 1:
                continue
            self.codes[row, column] = mark
            self.inks[row, column] = ink_of(layer.series)
            last = column

    def event(self, x: float, sign: str) -> None:
        column = self.column(x)
        if column is not None:
            self.codes[self.height, column] = ord(sign)
            self.inks[self.height, column] = Ink.EVENT

    def write(self, row: int, column: int, text: str, ink: int) -> None:
        for letter in text:
            size = cell_len(letter)
            if column + size > self.codes.shape[1]:
                return
            if size == 0:  # joins what stands beside it; here each letter has cells of its own
                continue
            self.codes[row, column : column + size] = (ord(letter), SECOND_HALF)[:size]
            self.inks[row, column : column + size] = ink
            column += size

    def mend_halves(self) -> None:
        """What was drawn over one half of a wide letter leaves a blank in place of the other."""
        row = self.codes[0]  # only names of stages may be wide, and they stand here
        second = np.flatnonzero(row == SECOND_HALF)
        for place in second.tolist():
            if cell_len(chr(row[place - 1])) != 2:
                row[place] = ord(" ")
        for place in np.flatnonzero(row >= _FIRST_WIDE).tolist():
            if cell_len(chr(row[place])) == 2 and row[place + 1 : place + 2].tolist() != [SECOND_HALF]:
                row[place] = ord(" ")

    def column(self, x: float) -> int | None:
        """The column of the picture in which `x` lies; None outside of the plot."""
        low, high = self.x_limits
        if not low <= x <= high or high <= low:
            return None
        return self.left + min(self.width - 1, int((x - low) / (high - low) * self.width))

    def row(self, y: float) -> int | None:
        low, high = self.y_limits
        if not low <= y <= high or high <= low:
            return None
        # The row of the dot, so that a mark sits on its line.
        dots = self.height * self.signs.glyphs.rows
        return round((high - y) / (high - low) * (dots - 1)) // self.signs.glyphs.rows


def _place(value: float, log: bool) -> float:
    if not log:
        return value
    return math.log10(value) if value > 0 else -math.inf


def _tick_values(limits: Limits, count: int, *, log: bool) -> list[float]:
    low, high = (10.0 ** limits[0], 10.0 ** limits[1]) if log else limits
    return ticks(low, high, count, log=log)
