"""What people and the system ask of a running worker, carried out between two steps.

Requests come as small files through `lmplay.runs`; signals come from schedulers and shells. Both only ever act here,
so a step is never interrupted.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from lmplay.runs import ControlInbox, Request, RunWriter, read_run_file, write_run_file
from lmplay.train.config import Limits, TrainConfig
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
    "train.keep_checkpoints",
    "train.sample_prompt",
    "train.sample_tokens",
    "limits.steps",
    "limits.samples",
    "limits.tokens",
)

# Seconds between two looks at the requests while paused.
PAUSED_POLL = 0.2

StageConfigs = Callable[[RunRequest], list[TrainConfig]]


class StopTraining(Exception):
    """Leave the loop at this step boundary, having saved; the process ends with `exit_status`."""

    def __init__(self, reason: str, *, exit_status: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_status = exit_status


class Control:
    """Carries out requests and signals for one worker. `obey(trainer)` is called at every step boundary."""

    def __init__(self, writer: RunWriter, request: RunRequest, stage_configs: StageConfigs) -> None:
        self._writer = writer
        self._inbox = ControlInbox(writer)
        self._request = request
        self._stage_configs = stage_configs
        self._signal: signal.Signals | None = None

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
        self._heed_signal()
        for request in self._inbox.pending():
            self._carry_out(request, trainer)

    def obey_before_training(self) -> None:
        """While data is prepared there is nothing to steer yet, but signals and requests to stop are heeded."""
        self._heed_signal()
        for request in self._inbox.pending():
            if request.action == "stop":
                self._inbox.acknowledge(request, "accepted")
                self._inbox.acknowledge(request, "done")
                raise StopTraining("asked to stop")

    def _heed_signal(self) -> None:
        if self._signal is not None:
            raise StopTraining(self._signal.name, exit_status=128 + self._signal)

    def _carry_out(self, request: Request, trainer: Trainer) -> None:
        self._inbox.acknowledge(request, "accepted", step=trainer.progress.step)
        try:
            result = self._act(request, trainer)
        except WrongUsageError as error:
            self._inbox.acknowledge(request, "refused", reason=str(error))
            return
        self._inbox.acknowledge(request, "done", step=trainer.progress.step, **result)
        if request.action == "stop":
            raise StopTraining("asked to stop")
        if request.action == "pause":
            self._wait_for_resume(trainer)

    def _act(self, request: Request, trainer: Trainer) -> dict[str, Any]:
        match request.action:
            case "stop":
                self._writer.status(state="stopping")
                return {}
            case "checkpoint":
                return {"checkpoint": trainer.save().name}
            case "validate":
                result = trainer.validate()
                if result is None:
                    raise WrongUsageError("this run has no validation text")
                return {"loss": result.loss}
            case "sample":
                return {"sample": trainer.sample()}
            case "set":
                return {"changed": self._change(dict(request.arguments), trainer)}
            case "pause":
                if trainer.paused:
                    raise WrongUsageError("the run is paused already")
                self._writer.status(state="pausing")
                trainer.save()
                return {}
            case "resume":
                if not trainer.paused:
                    raise WrongUsageError("the run is not paused")
                trainer.paused = False
                self._writer.status(state="running")
                return {}
            case _:
                raise WrongUsageError(f"a worker cannot {request.action}")

    def _wait_for_resume(self, trainer: Trainer) -> None:
        """Saved and idle until someone asks to resume or to stop; everything else is carried out meanwhile."""
        trainer.paused = True
        self._writer.status(state="paused")
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
        try:
            asked = read_run_file(self._writer.path)
            write_run_file(self._writer.path, {**asked, "request": request.model_dump(mode="json")})
        except (OSError, LMPlayError) as error:
            self._writer.event("warning", message=f"the change holds, but is not in run.json: {error}")
        self._writer.event("changed", step=trainer.progress.step, **{"changes": changes})
        return changes
