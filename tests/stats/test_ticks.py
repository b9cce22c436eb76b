"""What stands on an axis: round values within its limits, and times as they are read."""

from __future__ import annotations

import itertools
import math
from datetime import timedelta

import pytest

from lmplay.stats.ticks import ticks, time_label, time_ticks


@pytest.mark.parametrize(
    ("low", "high", "count", "labels"),
    [
        (0, 50, 5, "0 10s 20s 30s 40s 50s"),
        (0, 130, 4, "0 1m 2m"),
        (100, 1000, 5, "5m 10m 15m"),
        (0, 7200, 4, "0 30m 1h 1h30m 2h"),
        (3600 * 20, 3600 * 31, 4, "21h 1d 1d3h 1d6h"),
        (0, 86400 * 9, 5, "0 2d 4d 6d 8d"),
    ],
)
def test_times_are_round_as_clocks_are_read(low: float, high: float, count: int, labels: str) -> None:
    assert " ".join(map(time_label, time_ticks(low, high, count))) == labels


@pytest.mark.parametrize("size", [10.0**power for power in range(-3, 8)])
@pytest.mark.parametrize("count", [2, 5, 9])
def test_ticks_lie_within_the_limits_evenly_and_about_as_many_as_wanted(size: float, count: int) -> None:
    for low, high in ((0.0, size), (size / 3, size * 1.7)):
        for found in (time_ticks(low, high, count), ticks(low, high, count)):
            assert all(low - 1e-9 * size <= value <= high + 1e-9 * size for value in found)
            steps = [after - before for before, after in itertools.pairwise(found)]
            assert steps == pytest.approx([steps[0]] * len(steps)) if steps else True
            assert len(found) <= 2 * count + 1


def test_a_label_never_carries_sixty_of_anything() -> None:
    for seconds in (59.0, 119.7, 3599.6, 7199.0, 86399.0, 90_000.0, 1e6):
        label = time_label(seconds)
        assert not any(part in label for part in ("m60s", "h60m", "d24h")), label
    assert time_label(7199) == "2h"  # to the minute
    assert time_label(-90) == "-1m30s"
    assert timedelta(hours=50).total_seconds() == 180_000
    assert time_label(180_000) == "2d2h"


def test_axes_without_extent_have_no_or_few_ticks() -> None:
    assert len(time_ticks(5.0, 5.0, 4)) <= 1
    assert time_ticks(0.0, math.inf, 4) == ticks(0.0, math.inf, 4)
