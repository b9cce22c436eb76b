"""The training loop: fetch, step, log, maybe validate, maybe save, obey; stage after stage.

`Trainer` knows nothing of processes and command lines: `worker.py` builds it, hands it a writer and tells it, through
`obey`, what people and signals ask for at a step boundary.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.optim import Optimizer

from lmplay.base.base_model import LMBase
from lmplay.data import StageData, ValidationData
from lmplay.generate import generate_text
from lmplay.runs import point_to
from lmplay.train.checkpoint import load_trainer_state, prune_checkpoints, save_checkpoint
from lmplay.train.config import Limits, TrainConfig
from lmplay.train.control import StopTraining
from lmplay.train.feed import DeviceBatch, batches
from lmplay.train.optimizers import apply_freezing, build_optimizer, set_hyperparameters
from lmplay.train.progress import Progress, StageProgress
from lmplay.train.randomness import random_states, restore_random_states
from lmplay.train.schedules import learning_rate
from lmplay.train.step import StepResult, TrainStep
from lmplay.train.validate import Validation, validate

# Often enough for a screen; each is a file replaced on the disk.
STATUS_SECONDS = 0.5


class Log(Protocol):
    """What the loop tells the world; `lmplay.runs.RunWriter` is one."""

    def metrics(self, row: dict[str, Any]) -> None: ...

    def event(self, kind: str, **fields: Any) -> None: ...

    def status(self, **fields: Any) -> None: ...


@dataclass(frozen=True)
class Stage:
    """One stage of the plan, ready to train: its settings and its rows."""

    name: str
    config: TrainConfig
    data: StageData

    @property
    def steps(self) -> int:
        return -(-self.data.num_rows // self.config.batch_size)


class Trainer:
    """Trains `model` through `stages`, from wherever `progress` stands."""

    def __init__(
        self,
        *,
        model: LMBase,
        experiment: str,
        stages: list[Stage],
        validation: ValidationData | None,
        limits: Limits,
        device: torch.device,
        folder: Path,
        log: Log,
        seed: int,
        obey: Callable[[Trainer], None],
    ) -> None:
        self.model = model
        self.experiment = experiment
        self.stages = stages
        self.validation = validation
        self.limits = limits
        self.device = device
        self.checkpoints = folder / "checkpoints"
        self.log = log
        self.seed = seed
        self.obey = obey
        self.progress = Progress(stages=[StageProgress(stage.name) for stage in stages])
        self.paused = False
        self._cannot_generate = False
        self._saved_step: int | None = None
        self._status_written = 0.0
        self._enter_stage()

    # The loop

    def train(self) -> None:
        """All that is left of the plan within the limits. Ends with a validated, saved model, also when asked to
        stop.
        """
        try:
            if self.progress.step == 0:
                self.validate()
            while self.progress.stage < len(self.stages) and not self._limit_reached():
                self.log.event("stage", stage=self.stage.name, step=self.progress.step)
                for batch in self._batches():
                    self._train_on(batch)
                    self.obey(self)
                    if self._limit_reached():
                        break
                else:
                    self._next_stage()
        except StopTraining:
            self._save_once()
            raise
        if self.progress.validated_step != self.progress.step:
            self.validate()
        self._save_once()

    def _train_on(self, batch: DeviceBatch) -> None:
        started = time.perf_counter()
        before, lr = self.progress.samples, self.current_lr()
        result = self.step(batch, lr)
        loss, grad_norm = float(result.loss), float(result.grad_norm)  # the logging boundary: the host waits here
        seconds = time.perf_counter() - started
        self.progress.advance(samples=batch.samples, tokens=batch.num_targets, seconds=seconds)
        self._log_step(result, loss=loss, grad_norm=grad_norm, lr=lr, tokens_per_second=batch.num_targets / seconds)
        if self._passed(self.stage.config.validation_interval, before):
            self.validate()
        if self._passed(self.stage.config.save_interval, before):
            self._save_once()

    def _batches(self) -> Iterator[DeviceBatch]:
        config, data = self.stage.config, self.stage.data
        return batches(
            data,
            first_row=self.progress.row,
            end_row=data.num_rows,
            batch_size=config.batch_size,
            piece_size=config.mini_batch_size,
            device=self.device,
        )

    # Stages and limits

    @property
    def stage(self) -> Stage:
        return self.stages[min(self.progress.stage, len(self.stages) - 1)]

    def _enter_stage(self, optimizer: Optimizer | None = None) -> None:
        """Ready the step for the stage that `progress` is in; `optimizer` is the one to go on with, if any."""
        config = self.stage.config
        apply_freezing(self.model, config.freeze)
        if optimizer is None:
            optimizer = build_optimizer(self.model, config, self.device)
        set_hyperparameters(optimizer, config)
        self.step = TrainStep(self.model, optimizer, config, self.device)
        self.model.train()

    def _next_stage(self) -> None:
        """The optimizer's state goes on where the rule and the trained parameters stay the same; else it starts
        anew.
        """
        before = self.stage.config
        self.progress.stage += 1
        self.progress.row = 0
        if self.progress.stage < len(self.stages):
            config = self.stage.config
            same = (config.optimizer, config.freeze) == (before.optimizer, before.freeze)
            self._enter_stage(self.step.optimizer if same else None)

    def reconfigure(self, configs: list[TrainConfig], limits: Limits) -> None:
        """Settings changed while running: in force from the next step on."""
        self.stages = [replace(stage, config=config) for stage, config in zip(self.stages, configs, strict=True)]
        self.limits = limits
        self.step.config = self.stage.config
        set_hyperparameters(self.step.optimizer, self.stage.config)

    def current_lr(self) -> float:
        return learning_rate(self.stage.config, self.progress.stages[self.progress.stage].steps, self._stage_end())

    def _stage_end(self) -> int:
        """Updates in this stage, counted with the limits: a decaying schedule ends where the training ends."""
        stage, progress = self.stage, self.progress
        done = progress.stages[progress.stage]
        ends = [stage.steps]
        if self.limits.steps is not None:
            ends.append(done.steps + self.limits.steps - progress.step)
        if self.limits.samples is not None:
            ends.append(done.steps - (progress.samples - self.limits.samples) // stage.config.batch_size)
        return max(1, min(ends))

    def total_steps(self) -> int:
        """Updates of the whole plan within the limits on steps and samples."""
        left = sum(stage.steps for stage in self.stages[self.progress.stage + 1 :])
        in_stage = self.progress.stages[min(self.progress.stage, len(self.stages) - 1)].steps
        total = self.progress.step - in_stage + self.stage.steps + left
        if self.limits.steps is not None:
            total = min(total, self.limits.steps)
        if self.limits.samples is not None:
            total = min(total, -(-self.limits.samples // self.stage.config.batch_size))
        return total

    def _limit_reached(self) -> bool:
        limits, progress = self.limits, self.progress
        return any(
            limit is not None and done >= limit
            for limit, done in (
                (limits.steps, progress.step),
                (limits.samples, progress.samples),
                (limits.tokens, progress.tokens),
            )
        )

    def _passed(self, interval: int, samples_before: int) -> bool:
        return self.progress.samples // interval > samples_before // interval

    # What the world is told

    def _log_step(
        self, result: StepResult, *, loss: float, grad_norm: float, lr: float, tokens_per_second: float
    ) -> None:
        progress = self.progress
        progress.stages[progress.stage].loss = loss
        row = {
            "kind": "train",
            **self._counters(),
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "tokens_per_second": tokens_per_second,
            **{name: float(term) for name, term in result.terms.items()},
        }
        if not bool(result.finite):
            progress.skipped_steps += 1
            row["skipped"] = True
            self.log.event("warning", message="the gradient is not finite: the update was skipped", step=progress.step)
        self.log.metrics(row)
        if time.monotonic() - self._status_written > STATUS_SECONDS:
            self._status_written = time.monotonic()
            self.log.status(state="running", **self.position())

    def _counters(self) -> dict[str, Any]:
        """Where a row stands: `time` is seconds of training, `clock` the time of day in seconds since 1970."""
        progress = self.progress
        return {
            "stage": self.stage.name,
            "step": progress.step,
            "samples": progress.samples,
            "tokens": progress.tokens,
            "time": progress.seconds,
            "clock": time.time(),
        }

    def position(self) -> dict[str, Any]:
        """How far the run is, for `status.json`."""
        progress, total = self.progress, self.total_steps()
        eta = progress.seconds / progress.step * max(0, total - progress.step) if progress.step else None
        return {
            "stage": self.stage.name,
            "stage_index": min(progress.stage, len(self.stages) - 1),
            "stages": len(self.stages),
            "step": progress.step,
            "total_steps": total,
            "samples": progress.samples,
            "tokens": progress.tokens,
            "eta_seconds": eta,
        }

    def validate(self) -> Validation | None:
        """The loss on the whole validation part, and a generated sample; logged. A best one so far is also saved."""
        if self.validation is None:
            return None
        config, progress = self.stage.config, self.progress
        with self._activity("validating"):
            result = validate(
                self.model,
                self.validation,
                piece_size=config.mini_batch_size,
                precision=config.precision,
                device=self.device,
            )
            sample = self.sample()
        progress.validated_step = progress.step
        progress.stages[min(progress.stage, len(self.stages) - 1)].validation_loss = result.loss
        figures = {
            "loss": result.loss,
            "perplexity": result.perplexity,
            "bits_per_byte": result.bits_per_byte(self.validation.bytes_per_token),
            "accuracy": result.accuracy,
        }
        self.log.metrics({"kind": "validate", **self._counters(), **figures})
        self.log.event("validated", step=progress.step, stage=self.stage.name, **figures, sample=sample)
        if progress.step and (progress.best_validation_loss is None or result.loss < progress.best_validation_loss):
            progress.best_validation_loss, progress.best_step = result.loss, progress.step
            self.save()
        return result

    @contextlib.contextmanager
    def _activity(self, name: str) -> Iterator[None]:
        """What the status says beside `running` while something else than a step takes the time."""
        self.log.status(activity=name, **self.position())
        try:
            yield
        finally:
            self.log.status(activity=None)

    def sample(self) -> str | None:
        """A short text of the model as it is now. Draws from a generator of its own."""
        config = self.stage.config
        if not config.sample_tokens or self._cannot_generate:
            return None
        try:
            return config.sample_prompt + generate_text(
                self.model, config.sample_prompt, max_tokens=config.sample_tokens, seed=self.seed
            )
        except Exception as error:  # noqa: BLE001 - a cache that isn't written yet is no reason to lose a training
            self._cannot_generate = True
            traceback.print_exc()
            self.log.event("warning", message=f"no more samples: generating failed with {error!r}")
            return None

    # Checkpoints

    def save(self) -> Path:
        """A checkpoint of this very step; `latest` and, where it is, `best` point to it. Older ones are pruned."""
        progress = self.progress
        with self._activity("saving"):
            folder = save_checkpoint(
                self.checkpoints, progress.step, self.model, experiment=self.experiment, state=self.state()
            )
            point_to(self.checkpoints, "latest", folder.name)
            if progress.best_step == progress.step:
                point_to(self.checkpoints, "best", folder.name)
            protected = {progress.step} | ({progress.best_step} if progress.best_step is not None else set())
            prune_checkpoints(self.checkpoints, keep=self.stage.config.keep_checkpoints, protected=protected)
        self._saved_step = progress.step
        self.log.event("saved", step=progress.step, checkpoint=folder.name)
        return folder

    def _save_once(self) -> None:
        if self._saved_step != self.progress.step:
            self.save()

    def state(self) -> dict[str, Any]:
        """Everything beside the weights that a bit-identical continuation needs."""
        return {
            "progress": self.progress.to_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "random": random_states(self.device),
        }

    def restore(self, folder: Path) -> None:
        """Stand where the checkpoint in `folder` stood. The model's weights are loaded before the trainer is built."""
        state = load_trainer_state(folder)
        self.progress = Progress.from_dict(state["progress"])
        if self.progress.stage < len(self.stages):
            self._enter_stage()
        self.step.optimizer.load_state_dict(state["optimizer"])
        self.step.scaler.load_state_dict(state["scaler"])
        restore_random_states(state["random"], self.device)
        self._saved_step = self.progress.step
