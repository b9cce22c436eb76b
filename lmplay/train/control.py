"""What people and the system ask of a running worker, carried out between two steps.

Requests come as small files through `lmplay.runs`; signals come from schedulers and shells; time runs out by
`--max-hours`. All of them only ever act at a step boundary, or end something long (a validation, a wait for the disk).
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, cast

import psutil

from lmplay.runs import ControlInbox, Request, RunWriter, read_run_file, write_run_file
from lmplay.train.config import Limits, TrainConfig
from lmplay.train.keep.disk import PatientLog
from lmplay.train.orders import StopTraining
from lmplay.train.parallel.following import SilentLog, SilentWriter
from lmplay.train.parallel.world import World
from lmplay.train.request import RunRequest, validated
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.names import did_you_mean

if TYPE_CHECKING:
    from lmplay.train.loop import Trainer

# What can change without another model, another optimizer or other data: the run stays the same experiment.
CHANGEABLE = (
    "train.lr",
    "train.min_lr_ratio",
    "train.weight_decay",
    "train.grad_clip",
    "train.validation_interval",
    "train.save_interval",
    "train.diagnostics_interval",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.keep_stage_ends",
    "train.keep_free_gb",
    "train.max_bad_steps",
    "train.spike_sigmas",
    "train.sample_prompt",
    "train.sample_tokens",
    "limits.steps",
    "limits.samples",
    "limits.tokens",
    "limits.hours",
)

# Seconds between two looks at the requests while paused.
PAUSED_POLL = 0.2

StageConfigs = Callable[[RunRequest], list[TrainConfig]]


class Control:
    """Carries out requests and signals for one worker. `obey(trainer)` is called at every step boundary.

    Of several processes the first one reads the requests and the clock, a signal to any of them counts, and all carry
    out the same at the same boundary.
    """

    def __init__(
        self, writer: RunWriter | SilentWriter, request: RunRequest, stage_configs: StageConfigs, world: World
    ) -> None:
        self.stopping = False
        self.in_step = False
        """Whether the processes walk through the training together; before that, each heeds what it knows."""
        self._writer = writer
        silent = isinstance(writer, SilentWriter)
        self.log = SilentLog(writer.path) if silent else PatientLog(writer, heed=self.heed)
        self._world = world
        self._path = writer.path
        self._inbox = None if silent else ControlInbox(cast("RunWriter", self.log))
        self._asked: deque[Request] = deque()
        self._request = request
        self._stage_configs = stage_configs
        self._signal: signal.Signals | None = None
        self._seconds_to_stop = 0.0
        # By a clock that nobody sets: only what was used up before this line is told by the time of day.
        born: float = psutil.Process().create_time()
        self._began = time.monotonic() - max(0.0, time.time() - born)

    def listen(self) -> None:
        """From now on SIGTERM, SIGUSR1 and SIGINT stop and save; a second SIGINT ends the process at once."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a handler
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number)

    def obey(self, trainer: Trainer) -> None:
        """Raises `StopTraining` when the run is to end here."""
        self._seconds_to_stop = trainer.seconds_to_stop()
        self._look()
        while self._asked:
            self._carry_out(self._asked.popleft(), trainer)

    def heed(self) -> None:
        """Raises `StopTraining`, once, after a signal or when the time is over, and `RunGoneError` when the folder to
        write into is gone. For a process by itself.
        """
        self._check_folder()
        if not self.stopping:
            self._end_after(int(self._signal or 0), self._time_is_over(), alone=True)

    def heed_stop(self) -> None:
        """As `heed`, and for a request to stop; other requests wait for the step boundary. For all processes."""
        self._look()
        for request in self._asked:
            if request.action == "stop":
                self._acknowledge(request, "accepted")
                self._acknowledge(request, "done")
                self._stop("asked to stop")

    def _look(self) -> None:
        """What came up since the last look, in any of the processes."""
        if self._world.size == 1 or not self.in_step:
            self.heed()
            self._asked.extend(self._pending())
            return
        self._check_folder()
        pending = self._pending()
        number, over, count = self._world.most(int(self._signal or 0), self._time_is_over(), len(pending))
        self._asked.extend(self._world.from_first(pending) if count else ())
        if not self.stopping:
            self._end_after(number, bool(over))

    def _check_folder(self) -> None:
        if not isinstance(self._writer, SilentWriter):
            self._writer.check_folder()

    def _pending(self) -> list[Request]:
        return self._inbox.pending() if self._inbox is not None else []

    def _time_is_over(self) -> bool:
        hours = self._request.limits.hours
        if hours is None or not self._world.is_first:
            return False
        seconds = time.monotonic() - self._began + self._seconds_to_stop
        return seconds > hours * 3600

    def _end_after(self, number: int, time_is_over: bool, *, alone: bool = False) -> None:
        if number:
            self._stop(signal.Signals(number).name, exit_status=128 + number, alone=alone)
        if time_is_over:
            self._stop(f"the {self._request.limits.hours:g} hours of --max-hours are over", alone=alone)

    def _stop(self, reason: str, *, exit_status: int = 0, alone: bool = False) -> NoReturn:
        self.stopping = True
        self.log.status(state="stopping")
        alone = self._world.size > 1 and (alone or not self.in_step)
        raise StopTraining(reason, exit_status=exit_status, alone=alone)

    def _acknowledge(self, request: Request, outcome: str, **fields: Any) -> None:
        if self._inbox is not None:
            self._inbox.acknowledge(request, outcome, **fields)

    def _carry_out(self, request: Request, trainer: Trainer) -> None:
        self._acknowledge(request, "accepted", step=trainer.course.progress.step)
        try:
            result = self._act(request, trainer)
        except WrongUsageError as error:
            self._acknowledge(request, "refused", reason=str(error))
            return
        except Exception as error:
            # The loop deals with it; who asked is not to wait for an answer that never comes.
            self._acknowledge(request, "refused", reason=" ".join(str(error).split()) or type(error).__name__)
            raise
        self._acknowledge(request, "done", step=trainer.course.progress.step, **result)
        if request.action == "stop":
            self._stop("asked to stop")
        if request.action == "pause":
            self._wait_for_resume(trainer)
        elif trainer.paused:
            self.log.status(state="paused", activity=None)  # also after a wait for the disk, which ends as running

    def _act(self, request: Request, trainer: Trainer) -> dict[str, Any]:
        match request.action:
            case "stop":
                return {}
            case "checkpoint":
                trainer.save()
                trainer.keeper.settle()
                return {"checkpoint": str(trainer.course.progress.step)}
            case "validate":
                result = trainer.validate()
                if result is None:
                    raise WrongUsageError("this run has no validation text")
                return {"loss": result.loss}
            case "sample":
                return {"sample": trainer.evaluation.sample(trainer.config)}
            case "set":
                return {"changed": self._change(dict(request.arguments), trainer)}
            case "pause":
                if trainer.paused:
                    raise WrongUsageError("the run is paused already")
                self.log.status(state="pausing")
                trainer.save()
                trainer.keeper.settle()
                return {}
            case "resume":
                if not trainer.paused:
                    raise WrongUsageError("the run is not paused")
                trainer.paused = False
                self.log.status(state="running")
                return {}
            case _:
                raise WrongUsageError(f"a worker cannot {request.action}")

    def _wait_for_resume(self, trainer: Trainer) -> None:
        """Saved and idle until someone asks to resume or to stop; everything else is carried out meanwhile."""
        trainer.paused = True
        self.log.status(state="paused", activity=None)
        while trainer.paused:
            time.sleep(PAUSED_POLL)
            self.obey(trainer)

    def _change(self, changes: dict[str, Any], trainer: Trainer) -> dict[str, Any]:
        """Apply `{"train.lr": 1e-4, ...}` from the next step on; also in `run.json`, so that a resumed run keeps it."""
        changes = {key if "." in key else f"train.{key}": value for key, value in changes.items()}
        for key in changes:
            if key not in CHANGEABLE:
                raise WrongUsageError(f"{key} cannot be changed while a run is going{did_you_mean(key, CHANGEABLE)}")
        train = {key.removeprefix("train."): value for key, value in changes.items() if key.startswith("train.")}
        limits = {key.removeprefix("limits."): value for key, value in changes.items() if key.startswith("limits.")}
        request = self._request.model_copy(
            update={
                "train": {**self._request.train, **train},
                "limits": validated(Limits, {**self._request.limits.model_dump(), **limits}, where="limits"),
            }
        )
        configs = self._stage_configs(request)
        trainer.reconfigure(configs, request.limits)
        self._request = request
        if not self._world.is_first:
            return changes
        try:
            asked = read_run_file(self._path)
            # As typed it stays beside, so that the command that was typed still means this run.
            typed = {"typed_request": asked.get("typed_request", asked["request"])}
            write_run_file(self._path, {**asked, **typed, "request": request.model_dump(mode="json")})
        except (OSError, LMPlayError) as error:
            self.log.event("warning", message=f"the change holds, but is not in run.json: {error}")
        self.log.event("changed", step=trainer.course.progress.step, **{"changes": changes})
        return changes
