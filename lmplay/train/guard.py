"""Judging each step's figures: skipped updates are counted, too many in a row are trouble, loss spikes are marked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lmplay.train.course import Course
from lmplay.train.keep.disk import Log
from lmplay.train.keep.progress import LossStatistics

# Steps before the running mean and variance of the loss say anything, and the share of each new loss in them.
SPIKE_WARMUP = 50
SPIKE_SHARE = 0.02
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
                expected = progress.losses.mean
                self._log.event("loss_spike", step=row["step"], loss=row["loss"], expected=expected, row=first_row)
            add_loss(progress.losses, row["loss"])
            return
        progress.skipped_steps += 1
        what = "gradient" if math.isfinite(row["loss"]) else "loss"
        message = f"the {what} is not finite: the update was skipped"
        self._log.event("warning", message=message, step=row["step"], row=first_row)
        if config.precision == "fp16" and math.isfinite(row["loss"]):
            return  # the scaler looks for the largest factor that does not overflow: this is how
        progress.bad_streak.append([self._course.index, first_row])
        if len(progress.bad_streak) >= config.max_bad_steps:
            count = len(progress.bad_streak)
            raise NotFiniteError(f"{count} updates in a row had no finite {what}", first_step=row["step"] - count + 1)


def is_spike(statistics: LossStatistics, loss: float, *, sigmas: float) -> bool:
    if statistics.count < SPIKE_WARMUP:
        return False
    return loss - statistics.mean > max(sigmas * math.sqrt(statistics.variance), SMALLEST_SPIKE * abs(statistics.mean))


def add_loss(statistics: LossStatistics, loss: float) -> None:
    """Move mean and variance towards `loss`, a spike no further than three deviations."""
    if statistics.count == 0:
        statistics.mean, statistics.count = loss, 1
        return
    # The first steps are averaged plainly, so that the beginning does not weigh for ever.
    share = max(SPIKE_SHARE, 1.0 / (statistics.count + 1))
    difference = loss - statistics.mean
    if statistics.count >= SPIKE_WARMUP:
        difference = min(difference, 3.0 * math.sqrt(statistics.variance))
    statistics.mean += share * difference
    statistics.variance = (1.0 - share) * (statistics.variance + share * difference * difference)
    statistics.count += 1
