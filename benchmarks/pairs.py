"""Timing that holds on a noisy machine: alternatives run in turn, and what is quoted is the median of their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of one alternative, and how many times as fast as the first one it is, pair by pair."""

    name: str
    seconds: float
    """Median of all rounds."""
    speedup: float
    """Median over the rounds of (first's seconds / this one's seconds)."""
    low: float
    high: float
    """Smallest and largest of these ratios."""


def compare(
    alternatives: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Run all alternatives once a round, in turn. The first one is what the others are held against.

    `clock` tells seconds; `time.process_time` leaves out the time that other programs have the processor.
    """
    times: dict[str, list[float]] = {name: [] for name in alternatives}
    for turn in range(warmup + rounds):
        for name, run in alternatives.items():
            started = clock()
            run()
            if turn >= warmup:
                times[name].append(clock() - started)
    first = times[next(iter(alternatives))]
    timings = []
    for name, seconds in times.items():
        ratios = [reference / own for reference, own in zip(first, seconds, strict=True)]
        timings.append(
            Timing(name, statistics.median(seconds), statistics.median(ratios), low=min(ratios), high=max(ratios))
        )
    return timings


def show(timings: list[Timing]) -> None:
    width = max(len(timing.name) for timing in timings)
    for timing in timings:
        print(
            f"{timing.name:<{width}}  {timing.seconds * 1e3:9.1f} ms  {timing.speedup:5.2f}x "
            f"({timing.low:.2f} to {timing.high:.2f})"
        )
