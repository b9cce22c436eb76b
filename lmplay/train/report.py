"""What training tells the world: a row a step, a row a validation, events, and how far it is.

On an accelerator the figures of a step stay there until several steps are read at once: reading waits for the device.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lmplay.train.course import Course
from lmplay.train.feed import DeviceBatch
from lmplay.train.guard import StepGuard
from lmplay.train.headway import Headway
from lmplay.train.keep.disk import Log
from lmplay.train.parallel.world import World
from lmplay.train.time_left import TimeLeft
from lmplay.train.update.diagnostics import NOISE, SIGNAL, noise_scale
from lmplay.train.update.step import StepResult
from lmplay.train.validate import Validation

# Often enough for a screen; each is a file replaced on the disk.
STATUS_SECONDS = 0.5
# The figures of an accelerator are read that often.
READ_SECONDS = 1.0


@dataclass(frozen=True)
class _Unread:
    """A step whose figures are still on the device."""

    row: dict[str, Any]  # what the host knows of it
    figures: dict[str, Tensor]
    first_row: int


class Report:
    """Writes what happens to `log`; the guard judges every step's figures once they are known."""

    def __init__(self, log: Log, course: Course, guard: StepGuard, device: torch.device, world: World) -> None:
        self._log = log
        self._course = course
        self._guard = guard
        self._at_once = device.type == "cpu"
        self._world = world
        self._float = torch.float32 if device.type == "mps" else torch.float64
        self.seconds_per_step = 0.0
        """Of the newest steps."""
        self._time_left = TimeLeft()
        self._unread: list[_Unread] = []
        self._began = time.perf_counter()
        self._status_written = 0.0

    # Steps

    def begin_step(self) -> None:
        if not self._unread:
            self._began = time.perf_counter()

    def step(self, result: StepResult, batch: DeviceBatch, lr: float) -> None:
        """Take note of an update that `course.progress` has counted."""
        progress = self._course.progress
        row = {
            "kind": "train",
            "stage": self._course.stage.name,
            "step": progress.step,
            "samples": progress.samples,
            "tokens": progress.tokens,
            "lr": lr,
            "batch_tokens": batch.num_targets,
        }
        figures = {"loss": result.loss, "grad_norm": result.grad_norm, "finite": result.finite, **result.figures}
        self._unread.append(_Unread(row, figures, batch.first_row))
        # What the figures lead to, going back to a checkpoint for one, must happen in all processes at the same step.
        if self._at_once or any(self._world.most(time.perf_counter() - self._began > READ_SECONDS)):
            self.flush()

    def flush(self) -> None:
        """Read the figures of all steps up to now, write their rows, have them judged. Raises what the guard raises."""
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        flat = torch.stack([figure.to(self._float) for step in unread for figure in step.figures.values()])
        values = iter(flat.tolist())  # the host waits here
        self.seconds_per_step = (time.perf_counter() - self._began) / len(unread)
        rows = [self._row(step, {name: next(values) for name in step.figures}) for step in unread]
        self._log.metrics(*rows)
        if time.monotonic() - self._status_written > STATUS_SECONDS:
            self._status_written = time.monotonic()
            self._log.status(state="running", **self.position())
        for step, row in zip(unread, rows, strict=True):
            self._guard.judge(row, first_row=step.first_row)

    def _row(self, step: _Unread, figures: dict[str, float]) -> dict[str, Any]:
        seconds = self.seconds_per_step
        self._time_left.step_took(seconds, stage=self._course.index)
        for counter in (self._course.progress, self._course.stage_progress):
            counter.seconds += seconds
        self._course.stage_progress.loss = figures["loss"]
        tokens = step.row.pop("batch_tokens")
        if NOISE in figures:
            scale = noise_scale(self._course.progress.noise, figures[NOISE], figures[SIGNAL])
            figures.update({"noise_scale": scale} if scale is not None else {})
        skipped = {} if figures.pop("finite") else {"skipped": True}
        times = {"time": self._course.progress.seconds, "clock": time.time(), "tokens_per_second": tokens / seconds}
        return {**step.row, **times, **figures, **skipped}

    # Everything else

    def stage_begins(self) -> None:
        stage, progress = self._course.stage, self._course.progress
        self._log.event("stage", stage=stage.name, step=progress.step, **stage.data.figures)
        if not progress.row:
            for notice in stage.data.notices:
                self.warn(notice, step=progress.step)

    def stage_ends(self) -> None:
        done = asdict(self._course.stage_progress)
        self._log.event("stage_ended", stage=done.pop("name"), step=self._course.progress.step, **done)

    def validated(self, result: Validation, *, bytes_per_token: float, sample: str | None) -> None:
        progress = self._course.progress
        where = {"stage": self._course.stage.name, "step": progress.step}
        figures = {
            "loss": result.loss,
            "perplexity": result.perplexity,
            "bits_per_byte": result.bits_per_byte(bytes_per_token),
            "accuracy": result.accuracy,
        }
        counters = {"samples": progress.samples, "tokens": progress.tokens}
        times = {"time": progress.seconds, "clock": time.time()}
        self._log.metrics({"kind": "validate", **where, **counters, **times, **figures})
        self._log.event("validated", **where, **figures, sample=sample)

    def event(self, kind: str, **fields: Any) -> None:
        self._log.event(kind, **fields)

    def warn(self, message: str, **fields: Any) -> None:
        self._log.event("warning", message=message, **fields)

    @contextlib.contextmanager
    def activity(self, name: str) -> Iterator[Callable[[int, int | None], None]]:
        """What the status says beside `running` while something else than a step takes the time. Who does it may call
        what this gives with how much is done, and of how much.
        """
        self._log.status(activity=name, **self.position())
        began, headway = time.perf_counter(), Headway()

        def tell(done: int, total: int | None) -> None:
            news = headway.news(done, total)
            if news is not None:
                self._log.status(**news)

        try:
            yield tell
        finally:
            self._time_left.activity_took(name, time.perf_counter() - began)
            self._log.status(activity=None)

    def position(self) -> Mapping[str, Any]:
        """How far the run is, for `status.json`."""
        progress, total = self._course.progress, self._course.total_steps()
        return {
            "stage": self._course.stage.name,
            "stage_index": self._course.index,
            "stages": len(self._course.stages),
            "step": progress.step,
            "total_steps": total,
            "samples": progress.samples,
            "tokens": progress.tokens,
            "by_stage": [asdict(stage) for stage in progress.stages],
            "eta_seconds": self._time_left.seconds(self._course),
        }
