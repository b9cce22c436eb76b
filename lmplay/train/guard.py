"""Judging each step's figures: skipped updates are counted, too many in a row are trouble, loss spikes are marked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lmplay.train.course import Course
from lmplay.train.keep.disk import Log
from lmplay.train.keep.progress import LossStatistics

# Steps before the running statistics of the loss say anything.
SPIKE_WARMUP = 50
# Share of each new loss in the mean of the newest ones, and of each new distance in that of the distances.
MEAN_SHARE, LAG_SHARE = 0.1, 0.02
# A very even loss has a small deviation: what is less than this share above the mean is no spike.
SMALLEST_SPIKE = 0.02


class NotFiniteError(Exception):
    """So many updates in a row had no finite loss and gradient that skipping them is no answer."""

    def __init__(self, message: str, *, first_step: int) -> None:
        super().__init__(message)
        self.first_step = first_step


class StepGuard:
    """`judge` is given every step's row, in order; raises `NotFiniteError` after `max_bad_steps` bad ones in a row."""

    def __init__(self, log: Log, course: Course) -> None:
        self._log = log
        self._course = course

    def judge(self, row: Mapping[str, Any], *, first_row: int) -> None:
        """`first_row`: where the step's batch begins in its stage."""
        progress, config = self._course.progress, self._course.stage.config
        if not row.get("skipped"):
            progress.bad_streak.clear()
            if config.spike_sigmas and is_spike(progress.losses, row["loss"], sigmas=config.spike_sigmas):
                expected = progress.losses.mean + progress.losses.lag
                self._log.event("loss_spike", step=row["step"], loss=row["loss"], expected=expected, row=first_row)
            add_loss(progress.losses, row["loss"])
            return
        progress.skipped_steps += 1
        what = "gradient" if math.isfinite(row["loss"]) else "loss"
        message = f"the {what} is not finite: the update was skipped"
        self._log.event("warning", message=message, step=row["step"], row=first_row)
        if math.isfinite(row["loss"]) and row.get("loss_scale", 1.0) > 1.0:
            return  # the scaler looks for the largest factor that does not overflow: this is how
        progress.bad_streak.append([self._course.index, first_row])
        if len(progress.bad_streak) >= config.max_bad_steps:
            count = len(progress.bad_streak)
            raise NotFiniteError(f"{count} updates in a row had no finite {what}", first_step=row["step"] - count + 1)


def is_spike(statistics: LossStatistics, loss: float, *, sigmas: float) -> bool:
    if statistics.count < SPIKE_WARMUP:
        return False
    expected = statistics.mean + statistics.lag
    return loss - expected > max(sigmas * math.sqrt(statistics.variance), SMALLEST_SPIKE * abs(expected))


def add_loss(statistics: LossStatistics, loss: float) -> None:
    """Move the statistics towards `loss`; what lies far off, no further than three deviations."""
    statistics.count += 1
    if statistics.count == 1:
        statistics.mean = loss
        return
    # The first ones are averaged plainly, so that the beginning does not weigh for ever.
    share = max(LAG_SHARE, 1.0 / (statistics.count - 1))
    beyond = loss - statistics.mean - statistics.lag
    if statistics.count > SPIKE_WARMUP:
        limit = 3.0 * math.sqrt(statistics.variance)
        beyond = max(-limit, min(limit, beyond))
    statistics.mean += max(MEAN_SHARE, 1.0 / statistics.count) * (statistics.lag + beyond)
    statistics.lag += share * beyond
    statistics.variance = (1.0 - share) * (statistics.variance + share * beyond * beyond)
