"""Curves as dots, against a loop that walks along the line."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmplay.stats.raster import ASCII, BLOCKS, BRAILLE, Glyphs, draw_line, fill_dots, line_extents

VALUES = st.lists(st.one_of(st.floats(-10, 10), st.just(float("nan"))), min_size=2, max_size=40)


@settings(max_examples=60, deadline=None)
@given(values=VALUES, columns=st.integers(1, 15))
def test_extents_are_those_of_the_line_between_the_points(values: list[float], columns: int) -> None:
    x, y = np.arange(len(values), dtype=np.float64), np.array(values)
    end = len(values) - 1.0
    low, high = line_extents(x, y, columns, (0.0, end))
    width = end / columns
    for column in range(columns):
        start, stop = column * width, (column + 1) * width
        seen = [value for place, value in enumerate(values) if np.isfinite(value) and start <= place <= stop]
        for place in range(len(values) - 1):
            one, other = values[place], values[place + 1]
            if np.isfinite(one) and np.isfinite(other):
                seen += [one + (other - one) * (edge - place) for edge in (start, stop) if place <= edge <= place + 1]
        # A point exactly on an edge belongs to one of the two columns beside it.
        if np.isnan(low[column]):
            assert not any(start < place < stop for place, value in enumerate(values) if np.isfinite(value))
        else:
            assert low[column] >= min(seen) - 1e-9
            assert high[column] <= max(seen) + 1e-9


def test_a_line_is_continuous_and_a_gap_is_a_gap() -> None:
    x = np.arange(11.0)
    y = np.where(np.arange(11) == 5, np.nan, x)
    dots = draw_line(x, y, (40, 50), (0.0, 10.0), (0.0, 10.0))
    filled = dots.any(axis=0)
    assert filled[:20].all()
    assert filled[31:].all()
    assert not filled[21:29].any()
    rows = [np.flatnonzero(dots[:, column]) for column in range(20)]
    for before, after in itertools.pairwise(rows):
        assert after.max() >= before.min() - 1  # no step without a dot


def test_a_spike_of_one_row_in_a_million_is_drawn() -> None:
    y = np.zeros(1_000_000)
    y[654_321] = 1.0
    dots = draw_line(np.arange(1e6), y, (8, 100), (0.0, 1e6), (0.0, 1.0))
    assert dots[0].sum() == 1
    assert dots[0, 65]


def test_what_is_outside_of_the_limits_is_not_drawn_at_their_edge() -> None:
    dots = fill_dots(np.array([5.0, 0.0, -3.0]), np.array([6.0, 0.5, 9.0]), 4, (0.0, 1.0))
    assert dots.any(axis=0).tolist() == [False, True, True]
    assert dots[:, 2].all()


@pytest.mark.parametrize(("glyphs", "corner"), [(BRAILLE, "⠁"), (BLOCKS, "▘"), (ASCII, "'")])
def test_characters_show_the_dots_they_stand_for(glyphs: Glyphs, corner: str) -> None:
    dots = np.zeros((glyphs.rows * 2, glyphs.columns * 3), np.bool_)
    assert (glyphs.pack(dots) == ord(" ")).all()
    dots[0, 0] = True
    assert chr(glyphs.pack(dots)[0, 0]) == corner
    dots[:] = True
    assert {chr(code) for code in glyphs.pack(dots).ravel()} == {glyphs.characters[-1]}
