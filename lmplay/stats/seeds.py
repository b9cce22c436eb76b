"""What a few seeds can tell: intervals, tests and how many more would settle a question. Plain numpy, equal to scipy.

A difference between two ideas is worth as much as it is large against the noise between seeds; nothing here hides how
little two or three seeds know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmplay.stats.parse import Floats

CONFIDENCE = 0.95
POWER = 0.8
# Every resample of so few values is counted exactly; of more, as many are drawn at random.
_RESAMPLES = 50_000


@dataclass(frozen=True, kw_only=True)
class Test:
    """A two-sided t test of a mean difference, with its confidence interval."""

    difference: float
    interval: tuple[float, float]
    p_value: float
    freedom: float
    kind: str
    """`paired`, `welch`, or `one against many`."""


def paired_test(one: Sequence[float], other: Sequence[float], confidence: float = CONFIDENCE) -> Test:
    """Student's t test on the differences `one[i] - other[i]` of matched seeds; at least two pairs."""
    differences = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    count = len(differences)
    assert count >= 2, "one pair has no spread"
    return _test(
        float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(count), count - 1, "paired", confidence
    )


def welch_test(one: Sequence[float], other: Sequence[float], confidence: float = CONFIDENCE) -> Test:
    """Welch's t test of `mean(one) - mean(other)`, unequal variances (Welch 1947); at least two values each."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    assert len(a) >= 2, "one value has no spread"
    assert len(b) >= 2, "one value has no spread"
    var_a, var_b = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    total = var_a + var_b
    # Welch-Satterthwaite
    spread = var_a**2 / (len(a) - 1) + var_b**2 / (len(b) - 1)
    freedom = total**2 / spread if spread > 0 else float(len(a) + len(b) - 2)
    return _test(float(a.mean() - b.mean()), math.sqrt(total), freedom, "welch", confidence)


def single_test(one: float, others: Sequence[float], confidence: float = CONFIDENCE) -> Test:
    """One value against several, taking its noise to be theirs: the two-sample t test with a sample of one."""
    values = np.asarray(others, np.float64)
    assert len(values) >= 2, "one value has no spread"
    error = float(values.std(ddof=1)) * math.sqrt(1 + 1 / len(values))
    return _test(one - float(values.mean()), error, len(values) - 1, "one against many", confidence)


def _test(difference: float, error: float, freedom: float, kind: str, confidence: float) -> Test:
    if error == 0.0:
        p_value = 1.0 if difference == 0 else 0.0
        return Test(
            difference=difference, interval=(difference, difference), p_value=p_value, freedom=freedom, kind=kind
        )
    half = t_quantile(0.5 + confidence / 2, freedom) * error
    return Test(
        difference=difference,
        interval=(difference - half, difference + half),
        p_value=2 * t_distribution(-abs(difference) / error, freedom),
        freedom=freedom,
        kind=kind,
    )


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean (Efron 1979); None for fewer than two values.

    All resamples of up to six values are counted, so the interval is then exact; with so few values it is too narrow,
    which is why the tests here use the t distribution.
    """
    data = np.asarray(values, np.float64)
    count = len(data)
    if count < 2:
        return None
    if count**count <= _RESAMPLES:
        picks = np.stack(np.meshgrid(*[np.arange(count)] * count), axis=-1).reshape(-1, count)
    else:
        picks = np.random.default_rng(seed).integers(0, count, (_RESAMPLES, count))
    means = data[picks].mean(axis=1)  # (resamples, count) -> (resamples,)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2], method="inverted_cdf")
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for having asked several questions (Holm 1979), in the given order."""
    order = np.argsort(p_values)
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def seeds_needed(difference: float, deviation: float, *, paired: bool, limit: int = 1000) -> int | None:
    """How many seeds (pairs, or for each of both) show a true difference of this size with 80% power at 5%.

    `deviation` is that of the differences when paired, else that of single values. None when more than `limit`.
    """
    if deviation <= 0 or difference == 0:
        return 2 if difference else None
    size = abs(difference) / deviation
    low, high = 2, 2
    while power_of(size, high, paired=paired) < POWER:
        low, high = high, high * 2
        if low > limit:
            return None
    while low < high:  # the least number with enough power
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(size, middle, paired=paired) >= POWER else (middle + 1, high)
    return low if low <= limit else None


def power_of(size: float, count: int, *, paired: bool, alpha: float = 0.05) -> float:
    """The chance that a two-sided t test finds a difference of `size` standard deviations with `count` seeds.

    With the noncentral t distribution written as an integral over the estimated deviation (s, chi distributed).
    """
    freedom = count - 1 if paired else 2 * (count - 1)
    shift = size * math.sqrt(count if paired else count / 2)
    critical = t_quantile(1 - alpha / 2, freedom)
    width = 10 / math.sqrt(2 * freedom)
    s = np.linspace(max(1e-9, 1 - width), 1 + max(width, 3.0), 4001)
    # log density of s = sqrt(chi2 / freedom)
    half = freedom / 2
    log_density = math.log(2) + half * math.log(half) - math.lgamma(half) + (freedom - 1) * np.log(s) - half * s * s
    missed = _normal(critical * s - shift) - _normal(-critical * s - shift)
    return float(1 - np.trapezoid(np.exp(log_density) * missed, s))


def t_distribution(t: float, freedom: float) -> float:
    """P(T <= t) of Student's distribution, by the regularized incomplete beta function."""
    if math.isinf(t):
        return 0.0 if t < 0 else 1.0
    whole = freedom + t * t
    tail = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / whole, t * t / whole)
    return tail if t <= 0 else 1 - tail


def t_quantile(probability: float, freedom: float) -> float:
    """The t with P(T <= t) = `probability`, for probabilities above one half, by bisection."""
    assert 0.5 <= probability < 1
    low, high = 0.0, 2.0
    while t_distribution(high, freedom) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_distribution(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """I_x(a, b) by its continued fraction, evaluated as Lentz does (DLMF 8.17.22).

    `rest` is 1 - x, given apart since it may be too small to be had from x.
    """
    if x <= 0:
        return 0.0
    if rest <= 0:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction of the mirrored argument converges faster
        return 1 - _incomplete_beta(b, a, rest, x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)) / a
    tiny = 1e-300
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(2000):
        m = step // 2
        if step == 0:
            factor = 1.0
        elif step % 2:
            factor = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            factor = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _away_from_zero(1 + factor * d, tiny)
        c = _away_from_zero(1 + factor / c, tiny)
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * (fraction - 1)


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def _normal(z: Floats) -> Floats:
    erf = np.fromiter((math.erf(value) for value in z / math.sqrt(2)), np.float64, len(z))
    return 0.5 * (1 + erf)
