"""The statistics of seeds, each held against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lmplay.stats import seeds

SAMPLES = st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=2, max_size=8)


@settings(max_examples=80, deadline=None)
@given(t=st.floats(-30, 30), freedom=st.floats(1, 200))
def test_t_distribution_equals_scipy(t: float, freedom: float) -> None:
    assert seeds.t_distribution(t, freedom) == pytest.approx(scipy.stats.t.cdf(t, freedom), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4.7, 30, 1000])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.975, 0.9995])
def test_t_quantile_equals_scipy(probability: float, freedom: float) -> None:
    assert seeds.t_quantile(probability, freedom) == pytest.approx(
        scipy.stats.t.ppf(probability, freedom), rel=1e-9, abs=1e-9
    )


@settings(max_examples=60, deadline=None)
@given(one=SAMPLES, other=SAMPLES)
def test_welch_equals_scipy(one: list[float], other: list[float]) -> None:
    if np.ptp(one) < 1e-3 or np.ptp(other) < 1e-3:
        return
    expected = scipy.stats.ttest_ind(one, other, equal_var=False)
    found = seeds.welch_test(one, other)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-7, abs=1e-12)
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-7, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=8))
def test_paired_equals_scipy(pairs: list[tuple[float, float]]) -> None:
    one, other = (np.round(values, 3) for values in zip(*pairs, strict=True))
    if np.ptp(one - other) < 1e-3:
        return
    expected = scipy.stats.ttest_rel(one, other)
    found = seeds.paired_test(one, other)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-7, abs=1e-12)
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-7, abs=1e-9)


def test_identical_values_have_an_interval_of_no_width() -> None:
    assert seeds.paired_test([1.0, 2.0], [1.0, 2.0]).p_value == 1.0
    found = seeds.welch_test([2.0, 2.0], [1.0, 1.0])
    assert (found.difference, found.interval, found.p_value) == (1.0, (1.0, 1.0), 0.0)


def test_one_against_many_is_the_pooled_test_with_a_sample_of_one() -> None:
    others = [3.1, 3.2, 3.05, 3.15]
    found = seeds.single_test(3.4, others)
    expected = scipy.stats.ttest_ind([3.4], others, equal_var=True)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [3.1, 3.2, 3.05, 3.15, 3.3], list(np.linspace(0, 1, 20) ** 2)])
def test_bootstrap_equals_scipy(values: list[float]) -> None:
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=40_000, rng=1
    ).confidence_interval
    found = seeds.bootstrap_interval(values)
    assert found == pytest.approx((expected.low, expected.high), abs=0.02 * np.ptp(values))


def test_bootstrap_of_few_values_is_exact_and_of_one_is_none() -> None:
    assert seeds.bootstrap_interval([1.0]) is None
    means = [(a + b + c) / 3 for a in (1, 2, 4) for b in (1, 2, 4) for c in (1, 2, 4)]
    assert seeds.bootstrap_interval([1.0, 2.0, 4.0]) == pytest.approx(
        tuple(np.quantile(means, [0.025, 0.975], method="inverted_cdf"))
    )


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("size", [0.3, 0.8, 1.5, 4.0])
@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_power_equals_the_noncentral_t_distribution(size: float, count: int, paired: bool) -> None:
    freedom = count - 1 if paired else 2 * (count - 1)
    shift = size * math.sqrt(count if paired else count / 2)
    critical = scipy.stats.t.ppf(0.975, freedom)
    below = scipy.stats.nct.cdf(-critical, freedom, shift)  # too small for scipy to give where it is NaN
    expected = scipy.stats.nct.sf(critical, freedom, shift) + np.nan_to_num(below)
    assert seeds.power_of(size, count, paired=paired) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("paired", [True, False])
def test_seeds_needed_is_the_least_number_with_enough_power(paired: bool) -> None:
    for difference in (0.02, 0.05, 0.2):
        count = seeds.seeds_needed(difference, 0.05, paired=paired)
        assert count is not None
        assert seeds.power_of(difference / 0.05, count, paired=paired) >= 0.8
        assert count == 2 or seeds.power_of(difference / 0.05, count - 1, paired=paired) < 0.8
    assert seeds.seeds_needed(1e-9, 1.0, paired=paired) is None


def test_holm_adjusts_in_the_given_order() -> None:
    assert seeds.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert seeds.holm([0.9]) == [0.9]
