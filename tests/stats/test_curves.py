"""Smoothing and decimation, each against a plain loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lmplay.stats.curves import WITHOUT_EFFECT
from lmplay.stats.decimate import decimate, envelope
from lmplay.stats.smoothing import smooth
from lmplay.train import config

VALUES = st.lists(st.one_of(st.floats(-1e3, 1e3), st.just(float("nan")), st.just(float("inf"))), max_size=300)


@settings(max_examples=60, deadline=None)
@given(values=VALUES, span=st.sampled_from([1.0, 1.5, 3.0, 20.0, 1000.0]))
def test_smoothing_equals_a_plain_weighted_mean(values: list[float], span: float) -> None:
    array = np.array(values)
    found = smooth(array, span)
    keep = 1 - 2 / (span + 1)
    total = weight = 0.0
    for index, value in enumerate(values):
        total, weight = total * keep, weight * keep
        if not np.isfinite(value):
            assert np.isnan(found[index])
            continue
        total, weight = total + value, weight + 1
        np.testing.assert_allclose(found[index], total / weight, rtol=1e-7, atol=1e-7)


def test_smoothing_of_a_constant_is_that_constant_from_the_first_point_on() -> None:
    np.testing.assert_allclose(smooth(np.full(50_000, 3.25), 500), 3.25, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(values=VALUES, columns=st.integers(1, 12))
def test_decimation_keeps_extremes_gaps_and_order(values: list[float], columns: int) -> None:
    y = np.array([value if np.isfinite(value) else np.nan for value in values])
    x = np.arange(len(y), dtype=np.float64)
    kept_x, kept_y = decimate(x, y, columns)
    assert len(kept_x) <= max(2 * columns, 0) or len(kept_x) == len(x)
    assert (np.diff(kept_x) > 0).all()
    np.testing.assert_array_equal(kept_y, y[kept_x.astype(int)])
    if np.isfinite(y).any():
        assert np.nanmin(kept_y) == np.nanmin(y)
        assert np.nanmax(kept_y) == np.nanmax(y)


@settings(max_examples=60, deadline=None)
@given(values=VALUES, columns=st.integers(1, 12))
def test_envelope_is_lowest_and_highest_of_each_column(values: list[float], columns: int) -> None:
    x, y = np.arange(len(values), dtype=np.float64), np.array(values)
    low, high = envelope(x, y, columns, (0.0, max(1.0, len(values) - 1.0)))
    width = max(1.0, len(values) - 1.0) / columns
    for column in range(columns):
        inside = [
            value
            for place, value in enumerate(values)
            if np.isfinite(value) and min(int(place / width), columns - 1) == column
        ]
        assert (np.isnan(low[column]) and not inside) or (low[column], high[column]) == (min(inside), max(inside))


def test_what_leaves_a_training_as_it_is_parts_no_seeds_of_one_idea() -> None:
    elsewhere = {"profile", "nproc", "shard"}  # no settings that comparisons see
    assert config.WITHOUT_EFFECT - elsewhere <= WITHOUT_EFFECT
