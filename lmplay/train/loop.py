"""The training loop: fetch, step, log, maybe validate, maybe save, obey; stage after stage.

`Trainer` knows nothing of processes and command lines: `worker.py` builds it, gives it a log, and tells it through
`Control` what people, schedulers and signals ask for at a step boundary.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import torch

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import describe_model
from lmplay.data import ValidationData
from lmplay.train.config import Limits, TrainConfig
from lmplay.train.course import Course
from lmplay.train.device import set_arithmetic
from lmplay.train.evaluation import Evaluation
from lmplay.train.feed import DeviceBatch, batches, to_device
from lmplay.train.guard import NotFiniteError, StepGuard
from lmplay.train.keep.checkpoint import load_trainer_state, newest_whole_checkpoint
from lmplay.train.keep.disk import PatientLog
from lmplay.train.keep.keeper import Keeper
from lmplay.train.keep.randomness import RandomState, preserved_randomness
from lmplay.train.keep.state import Training, progress_of
from lmplay.train.orders import Orders, StopTraining
from lmplay.train.parallel.spread import shard
from lmplay.train.parallel.world import World
from lmplay.train.profile import StepProfile
from lmplay.train.report import Report
from lmplay.train.trouble import examine
from lmplay.train.update.average import WeightAverage
from lmplay.train.update.compiling import compile_blocks
from lmplay.train.update.diagnostics import Diagnostics
from lmplay.train.update.memory import OutOfMemory, as_out_of_memory, free_cached_memory, largest_piece, let_go
from lmplay.train.update.optimizers import apply_freezing, build_optimizer, set_hyperparameters
from lmplay.train.update.step import StepResult, TrainStep
from lmplay.train.validate import Validation
from lmplay.utils.errors import LMPlayError

# Bytes a second that any disk is expected to take.
SLOW_DISK = 100e6


class Trainer:
    """Trains `model` along `course`, from wherever that stands."""

    def __init__(
        self,
        *,
        model: LMBase,
        experiment: str,
        course: Course,
        validation: ValidationData | None,
        device: torch.device,
        checkpoints: Path,
        log: PatientLog,
        seed: int,
        orders: Orders,
        world: World,
        profile_steps: int = 0,
    ) -> None:
        self.model = model
        self.description = describe_model(model, experiment=experiment)
        self.course = course
        self.device = device
        self.checkpoints = checkpoints
        self.log = log
        self.orders = orders
        self.world = world
        self.paused = False
        if any(stage.config.compile for stage in course.stages):
            compile_blocks(model)
        if world.shard:
            shard(model, world, device)
        self.average: WeightAverage | None = None
        self.report = Report(log, course, StepGuard(log, course), device, world)
        self.evaluation = Evaluation(
            model, validation, report=self.report, orders=orders, device=device, seed=seed, world=world
        )
        self.profile = StepProfile(
            checkpoints.parent / "profile", profile_steps, device, self._profiled, self.report.warn
        )
        self.keeper = Keeper(checkpoints, log, self.config, orders, world)
        self._enter_stage()

    # The loop

    def train(self) -> None:
        """All that is left of the course. Ends with a validated, saved model; asked to stop, with a saved one."""
        try:
            self._choose_pieces()
            while not (self.course.ended and self._is_validated()):
                try:
                    if self.course.ended or self.course.progress.validation_due:
                        self.validate()
                    else:
                        self._train_stage()
                except NotFiniteError as error:
                    self._go_back(error)
                except OutOfMemory as error:
                    self._halve_pieces(error)
                    self._choose_pieces()
            self.profile.finish()
            self.save()
            self.keeper.settle()
        except StopTraining as stop:
            if not stop.alone:
                self._save_before_stopping()
            raise

    def _train_stage(self) -> None:
        self.report.stage_begins()
        for batch in self._batches():
            self._train_on(batch)
            if self.course.passed(self.config.validation_interval, batch.samples):
                self.validate()
            if self.course.passed(self.config.save_interval, batch.samples):
                self.save()
            self.keeper.wait_for_room()
            self.orders.obey(self)
            if self.course.limit_reached():
                return
        self._next_stage()

    def _train_on(self, batch: DeviceBatch) -> None:
        self.report.begin_step()
        lr = self.course.lr()
        with self.profile.step():
            result = self._one_update(batch, lr)
        self.course.progress.advance(samples=batch.samples, tokens=batch.num_targets)
        if self.average is not None:
            self.average.update(self.course.progress.step)
        self.report.step(result, batch, lr)

    def _profiled(self, trace: Path, summary: str) -> None:
        self.report.event("profiled", step=self.course.progress.step, trace=str(trace))
        print(summary, flush=True)  # noqa: T201 - into worker.log

    def _one_update(self, batch: DeviceBatch, lr: float) -> StepResult:
        """Where memory does not suffice, nothing has happened, and the same step can be made again."""
        before = RandomState.take(self.device)
        due = self.course.will_pass(self.config.diagnostics_interval, batch.samples)
        try:
            return self.step(batch, lr, watch=Diagnostics(self.model, self.world) if due else None)
        except OutOfMemory:
            before.put_back(self.device)
            raise

    def _batches(self) -> Iterator[DeviceBatch]:
        """What is left of the stage, but for batches that are known to harm and such as have no target."""
        progress, data = self.course.progress, self.course.stage.data
        for batch in batches(
            data,
            first_row=progress.row,
            end_row=data.num_rows,
            batch_size=self.config.batch_size,
            piece_size=self.piece_size,
            device=self.device,
            share=self.world.share,
        ):
            if batch.num_targets and [self.course.index, batch.first_row] not in progress.bad_rows:
                yield batch
                continue
            why = "it was left out after the run went back" if batch.num_targets else "it has no target"
            self.report.warn(f"the batch at row {batch.first_row} is passed over: {why}")
            progress.row += batch.samples

    def _is_validated(self) -> bool:
        return self.course.progress.validated_step == self.course.progress.step

    def seconds_to_stop(self) -> float:
        """How long it takes, at the most, to end the run from a step boundary with everything saved."""
        # Weights and two moments, where no checkpoint of this worker has shown yet how fast the disk is.
        expected = 3 * sum(parameter.nbytes for parameter in self.model.parameters()) / SLOW_DISK
        return 2.0 * (self.report.seconds_per_step + (self.keeper.seconds_per_save or expected))

    # Stages

    @property
    def config(self) -> TrainConfig:
        return self.course.stage.config

    @property
    def piece_size(self) -> int:
        """Rows computed at once: as configured, or fewer where those did not fit."""
        configured = self.config.mini_batch_size
        known = self.course.progress.piece_size
        if configured == "auto":
            return known or 1
        return min(configured, known or configured)

    def _enter_stage(self, before: TrainStep | None = None) -> None:
        """Ready the step for the stage that the course is in; what `before` has learned goes on where it fits."""
        config = self.config
        set_arithmetic(config)
        apply_freezing(self.model, config.freeze)
        self._set_average(config.ema)
        same = before is not None and (config.optimizer, config.freeze) == (
            before.config.optimizer,
            before.config.freeze,
        )
        optimizer = (
            before.optimizer if before is not None and same else build_optimizer(self.model, config, self.device)
        )
        set_hyperparameters(optimizer, config)
        self.step = TrainStep(self.model, optimizer, config, self.device, self.world)
        if before is not None and before.scaler.is_enabled() and self.step.scaler.is_enabled():
            self.step.scaler = before.scaler
        self.keeper.config = config
        self.model.train()

    def _set_average(self, decay: float) -> None:
        """An average that goes on from stage to stage, or begins at the weights as they are now."""
        if not decay:
            self.average = None
        elif self.average is None:
            self.average = WeightAverage(self.model, decay)
        else:
            self.average.decay = decay
        self.evaluation.average = self.average

    def _next_stage(self) -> None:
        if not self.course.is_last_stage:  # the last one's end is saved when it has been validated
            self.save()
        self.report.flush()
        self.report.stage_ends()
        self.course.next_stage()
        if not self.course.ended:
            self._enter_stage(self.step)
            self._choose_pieces()

    def _choose_pieces(self) -> None:
        """`mini_batch_size = "auto"`: once a stage, and then kept, so that a resumed run computes the same pieces."""
        config, progress = self.config, self.course.progress
        if self.course.ended:
            return
        if config.mini_batch_size == "auto" and progress.piece_size is None:
            with self.report.activity("finding the largest mini-batch"):
                most = min(-(-config.batch_size // self.world.size), self.course.stage.data.num_rows)
                fresh = 0 if self.step.optimizer.state else 2 * sum(p.nbytes for p in self.step.trained)
                fits = largest_piece(
                    self._try_piece,
                    self._fetch_piece,
                    most=most,
                    device=self.device,
                    state_to_come=fresh,
                    sharers=self.world.place.local_size,
                )
                progress.piece_size = -max(self.world.most(-fits))
                self.step.optimizer.zero_grad(set_to_none=True)
            self.report.event("mini_batch", samples=progress.piece_size)
        if self.world.size > 1 and not self.world.shard:
            self._rehearse()

    def _rehearse(self) -> None:
        """A piece's forward and backward pass, forgotten afterwards: a process that has no room for them must find out
        before its part of the gradient's sum has begun, which the others could not take back.
        """
        while True:
            try:
                with self.world.together(OutOfMemory), as_out_of_memory(), preserved_randomness(self.device):
                    self._try_piece(self._fetch_piece(min(self.piece_size, self.course.stage.data.num_rows)))
            except OutOfMemory as error:
                self._halve_pieces(error)
                continue
            self.step.optimizer.zero_grad(set_to_none=True)
            return

    def _fetch_piece(self, size: int) -> DeviceBatch:
        return to_device(self.course.stage.data.rows(0, size), first_row=0, piece_size=size, device=self.device)

    def _try_piece(self, batch: DeviceBatch) -> object:
        return self.step.accumulate(batch, together=False)

    def reconfigure(self, configs: list[TrainConfig], limits: Limits) -> None:
        """Settings changed while running: in force from the next step on."""
        self.course.reconfigure(configs, limits)
        self.step.config = self.keeper.config = self.config
        set_hyperparameters(self.step.optimizer, self.config)

    # Looking at the model, keeping it

    def validate(self) -> Validation | None:
        """The loss on the whole validation part, and a generated sample; logged. A best one so far is also saved."""
        self.report.flush()
        progress = self.course.progress
        progress.validation_due = True  # a run that is stopped in the middle makes up for it
        result = self.evaluation.loss(self.step.objective, self.config, piece_size=self.piece_size)
        progress.validation_due = False
        progress.validated_step = progress.step
        if result is None:
            return None
        self.course.stage_progress.validation_loss = result.loss
        best = math.inf if progress.best_validation_loss is None else progress.best_validation_loss
        if progress.step and result.loss < best:  # never so of a loss that is not a number
            progress.best_validation_loss, progress.best_step = result.loss, progress.step
            self.keeper.saved_step = None  # a checkpoint of this step that is there doesn't know that it is the best
            self.save()
        return result

    def save(self) -> None:
        """A checkpoint of this very step, written in the background; `keeper.settle()` waits for it."""
        self.report.flush()
        with self.report.activity("saving"):
            self.keeper.save(self.course.progress, self._training().content)

    def _save_before_stopping(self) -> None:
        """The end is wanted: a disk that stays full or a step that went wrong is no reason to wait for it."""
        self.profile.finish()
        with contextlib.suppress(NotFiniteError):
            self.report.flush()
        for problem in self.keeper.save_at_the_end(self.course.progress, self._training().content):
            self.report.warn(problem)

    def restore(self, folder: Path) -> None:
        """Stand where the checkpoint in `folder` stood."""
        state = load_trainer_state(folder, mapped=self.world.shard)
        self.course.progress = progress_of(state, self.course)
        self._enter_stage()
        for doubt in self._training().restore(folder, state):
            self.report.warn(f"the continuation may differ from an undisturbed run: {doubt}")
        self.keeper.go_on_from(self.course.progress)

    def _training(self) -> Training:
        return Training(
            self.model,
            self.description,
            self.course,
            self.step,
            self.average,
            self.device,
            self.world,
            checkpoints=self.checkpoints,
            wait_for_bytes=self.keeper.wait_for_bytes,
        )

    # Trouble

    def _go_back(self, error: NotFiniteError) -> None:
        """Once, to the last checkpoint before the trouble; the batches that made it are left out from then on."""
        progress = self.course.progress
        trouble = examine(self.step, self._batch_of(progress.bad_streak[0]), self.model)
        self.report.event("not_finite", step=error.first_step, reason=str(error), **trouble.fields())
        self.keeper.settle()
        found = None
        if self.world.is_first and not progress.went_back:
            found = newest_whole_checkpoint(self.checkpoints, before=error.first_step)
        found = self.world.from_first(found)
        if found is None:
            raise LMPlayError(f"{error} (the first is step {error.first_step}): {trouble.summary()}")
        self.restore(found.folder)
        now = self.course.progress
        now.bad_rows, now.went_back = progress.bad_rows + progress.bad_streak, progress.went_back + 1
        now.skipped_steps = progress.skipped_steps
        self.log.resumed(now.step, checkpoint=found.folder.name, reason=str(error), left_out=progress.bad_streak)

    def _batch_of(self, place: list[int]) -> DeviceBatch:
        stage, first_row = place
        data, batch_size = self.course.stages[stage].data, self.course.stages[stage].config.batch_size
        rows = data.rows(first_row, min(batch_size, data.num_rows - first_row))
        return to_device(rows, first_row=first_row, piece_size=self.piece_size, device=self.device)

    def _halve_pieces(self, error: OutOfMemory) -> None:
        size = self.piece_size
        if size == 1:
            raise LMPlayError(
                f"one sample at a time needs more memory than there is ({error}): "
                "set a shorter train.sequence_length, a smaller model or --amp"
            ) from error
        self.course.progress.piece_size = size // 2
        self.step.optimizer.zero_grad(set_to_none=True)
        let_go(error)
        free_cached_memory(self.device)
        self.report.warn(
            f"out of memory with {size} samples at once: going on with {size // 2}, same step, same result"
        )
