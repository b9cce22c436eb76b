"""Where the training stands between its first step and its end: stages, limits, intervals and the rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lmplay.data import StageData
from lmplay.train.config import Limits, TrainConfig
from lmplay.train.keep.progress import LossStatistics, Progress, StageProgress
from lmplay.train.update.schedules import learning_rate


@dataclass(frozen=True)
class Stage:
    """One stage of the plan, ready to train: its settings and its rows."""

    name: str
    config: TrainConfig
    data: StageData

    @property
    def steps(self) -> int:
        return -(-self.data.num_rows // self.config.batch_size)


class Course:
    """The stages and limits of a run, and how far `progress` has come through them."""

    def __init__(self, stages: Sequence[Stage], limits: Limits) -> None:
        self.stages = list(stages)
        self.limits = limits
        self.progress = Progress(stages=[StageProgress(stage.name) for stage in stages])

    @property
    def index(self) -> int:
        """Of the stage that is trained; at the end, of the last one."""
        return min(self.progress.stage, len(self.stages) - 1)

    @property
    def is_last_stage(self) -> bool:
        return self.progress.stage >= len(self.stages) - 1

    @property
    def stage(self) -> Stage:
        return self.stages[self.index]

    @property
    def stage_progress(self) -> StageProgress:
        return self.progress.stages[self.index]

    @property
    def ended(self) -> bool:
        return self.progress.stage >= len(self.stages) or self.limit_reached()

    def limit_reached(self) -> bool:
        limits, progress = self.limits, self.progress
        return any(
            limit is not None and done >= limit
            for limit, done in (
                (limits.steps, progress.step),
                (limits.samples, progress.samples),
                (limits.tokens, progress.tokens),
            )
        )

    def passed(self, interval: int | None, samples: int) -> bool:
        """Whether a multiple of `interval` samples was passed in the newest `samples` of them."""
        done = self.progress.samples
        return interval is not None and done // interval > (done - samples) // interval

    def will_pass(self, interval: int | None, samples: int) -> bool:
        """Whether the next `samples` pass a multiple of `interval`."""
        done = self.progress.samples
        return interval is not None and (done + samples) // interval > done // interval

    def lr(self) -> float:
        """The rate of the next update."""
        return learning_rate(self.stage.config, self.stage_progress.steps, self._stage_end())

    def _stage_end(self) -> int:
        """Updates in this stage, counted with the limits: a decaying schedule ends where the training ends."""
        stage, progress, done = self.stage, self.progress, self.stage_progress
        ends = [stage.steps]
        if self.limits.steps is not None:
            ends.append(done.steps + self.limits.steps - progress.step)
        if self.limits.samples is not None:
            ends.append(done.steps - (progress.samples - self.limits.samples) // stage.config.batch_size)
        if self.limits.tokens is not None and progress.samples:
            # Rows hold more or fewer targets: the mean so far says how many updates are left.
            tokens_per_step = progress.tokens / progress.samples * stage.config.batch_size
            ends.append(done.steps - int((progress.tokens - self.limits.tokens) // max(1.0, tokens_per_step)))
        return max(1, min(ends))

    def total_steps(self) -> int:
        """Updates of the whole plan within the limits."""
        progress = self.progress
        total = progress.step - self.stage_progress.steps + self._stage_end()
        room = self._samples_within_limits() - max(0, self.stage.data.num_rows - progress.row)
        for stage in self.stages[progress.stage + 1 :]:
            total += math.ceil(max(0, min(room, stage.data.num_rows)) / stage.config.batch_size)
            room -= stage.data.num_rows
        return total if self.limits.steps is None else min(total, self.limits.steps)

    def _samples_within_limits(self) -> float:
        """How many samples the limits of samples and tokens still allow."""
        limits, progress = self.limits, self.progress
        left = math.inf if limits.samples is None else float(limits.samples - progress.samples)
        if limits.tokens is not None and progress.tokens:
            left = min(left, (limits.tokens - progress.tokens) / (progress.tokens / progress.samples))
        return left

    def next_stage(self) -> None:
        progress = self.progress
        progress.stage += 1
        progress.row = 0
        progress.piece_size = None
        progress.losses = LossStatistics()  # another text has another loss

    def reconfigure(self, configs: Sequence[TrainConfig], limits: Limits) -> None:
        self.stages = [replace(stage, config=config) for stage, config in zip(self.stages, configs, strict=True)]
        self.limits = limits
