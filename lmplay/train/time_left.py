"""How long a run will still take: its steps, and the validations and checkpoints that are still to come.

They are measured apart. A rate of progress that counted them all would jump with every validation, and before the first
one know nothing of it.
"""

from __future__ import annotations

import statistics
from collections import deque

from lmplay.train.course import Course

_NEWEST_STEPS = 50
"""Steps whose median stands for those to come: one that was held up, as the first one is, doesn't count."""


class TimeLeft:
    """Takes note of what takes how long; `seconds` looks ahead."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=_NEWEST_STEPS)
        self._stage = 0
        self._activities: dict[str, float] = {}

    def step_took(self, seconds: float, *, stage: int) -> None:
        """`stage` by its number: another one has steps of another length."""
        if stage != self._stage:
            self._stage = stage
            self._steps.clear()
        self._steps.append(seconds)

    def activity_took(self, name: str, seconds: float) -> None:
        """The newest validation or saving stands for those to come."""
        self._activities[name] = seconds

    def seconds(self, course: Course) -> float | None:
        """Until the run is done; None before its first step."""
        progress, config = course.progress, course.stage.config
        steps = max(0, course.total_steps() - progress.step)
        if not self._steps:
            return None
        end = progress.samples + steps * config.batch_size
        validations = _to_come(progress.samples, end, config.validation_interval)
        validations -= progress.validated_step == progress.step and not steps  # the one at the end is done
        return (
            steps * statistics.median(self._steps)
            + validations * self._activities.get("validating", 0.0)
            + _to_come(progress.samples, end, config.save_interval) * self._activities.get("saving", 0.0)
        )


def _to_come(now: int, end: int, interval: int) -> int:
    """Multiples of `interval` in (now, end], and the end itself."""
    return end // interval - now // interval + (end % interval != 0 or now == end)
