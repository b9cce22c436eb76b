"""The checkpoints of one run: when one is due again, written in the background, pointed to, pruned by policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lmplay.runs import point_to, read_pointer
from lmplay.train.config import TrainConfig
from lmplay.train.keep.checkpoint import (
    About,
    Content,
    checkpoint_steps,
    read_about,
    remove_checkpoint,
)
from lmplay.train.keep.disk import MARGIN, PatientLog, free_bytes
from lmplay.train.keep.progress import Progress
from lmplay.train.keep.retention import next_to_give_up, superfluous
from lmplay.train.keep.saver import BackgroundSaver, NoSaver, SaveAbandonedError
from lmplay.train.orders import Orders
from lmplay.train.parallel.world import World


class Keeper:
    """Saves each step at most once; `config` is that of the stage that is trained and may change. Of several processes
    the first one writes; the others contribute what it cannot know.
    """

    def __init__(self, checkpoints: Path, log: PatientLog, config: TrainConfig, orders: Orders, world: World) -> None:
        if world.is_first:
            checkpoints.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.saved_step: int | None = None
        self._checkpoints = checkpoints
        self._log = log
        self._orders = orders
        self._world = world
        self._saver = (
            BackgroundSaver(checkpoints, on_written=self._after_writing, heed=self._while_waiting)
            if world.is_first
            else NoSaver()
        )

    def go_on_from(self, progress: Progress) -> None:
        """The run stands at the checkpoint of `progress`. Later ones are of a course that was left; a crash may have
        kept the pointers from following the newest.
        """
        self.saved_step = progress.step
        kept = progress.best_step is None or (self._checkpoints / str(progress.best_step)).is_dir()
        if not self._world.from_first(kept):  # given up for one on the course that was left, or deleted by someone
            progress.best_step = progress.best_validation_loss = None
        if not self._world.is_first:
            return
        for step in checkpoint_steps(self._checkpoints):
            if step > progress.step:
                remove_checkpoint(self._checkpoints, step)
        for pointer, pointed in (("latest", progress.step), ("best", progress.best_step)):
            folder = self._checkpoints / str(pointed)
            if folder.is_dir() and read_pointer(self._checkpoints, pointer) != folder:
                point_to(self._checkpoints, pointer, folder.name)

    def save(self, progress: Progress, take: Callable[[], Content]) -> None:
        """Save what `take` gives unless this very step is saved already; returns while it is still being written."""
        if self.saved_step == progress.step:
            return
        every = self.config.keep_every
        if every and progress.samples // every > progress.milestone_samples // every:
            progress.milestone_samples, progress.milestone_step = progress.samples, progress.step
        if self._world.shard:
            self._saver.settle()  # the parts of this checkpoint may be written to where the ones before still are
        self._saver.save(take())
        self.saved_step = progress.step

    def settle(self) -> None:
        """Wait until what was saved is on the disk; raises what went wrong with it."""
        self._saver.settle()

    def save_at_the_end(self, progress: Progress, take: Callable[[], Content]) -> list[str]:
        """As `save` and `settle`, when the run is to end: no room on the disk is not waited for. What was given up."""
        given_up = []
        for attempt in (self.settle, lambda: self.save(progress, take), self.settle):
            try:
                attempt()
            except SaveAbandonedError as error:
                given_up.append(str(error))
        return given_up

    @property
    def seconds_per_save(self) -> float:
        """Of the slowest checkpoint of this process so far."""
        return self._saver.slowest

    def wait_for_room(self) -> None:
        """While the newest checkpoint finds no room on the disk, the run is paused."""
        self._log.wait_for_room(lambda: self._saver.shortage)

    def wait_for_bytes(self, needed: int) -> None:
        """Until the disk has room for what all processes are about to write."""

        def shortage() -> str | None:
            free = free_bytes(self._checkpoints)
            if free >= needed + MARGIN:
                return None
            return f"a checkpoint needs {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB free"

        if self._world.is_first:
            self._log.wait_for_room(shortage)

    def _while_waiting(self) -> None:
        """Called several times a second while the training waits for a checkpoint to be written."""
        if self._saver.shortage is not None:
            if self._orders.stopping:
                self._saver.abandon()
            self._log.status(state="paused", activity=f"waiting for room: {self._saver.shortage}")
        # Several processes end together, at a step boundary; they are only kept from it where the wait has no end.
        if self._saver.shortage is not None or self._world.size == 1:
            self._orders.heed()

    def _after_writing(self, folder: Path, content: Content) -> None:
        """In the writer's thread: the checkpoint in `folder` is whole."""
        best = content.state["progress"]["best_step"]
        point_to(self._checkpoints, "latest", folder.name)
        if best == content.about.step:
            point_to(self._checkpoints, "best", folder.name)
        self._prune(protected={content.about.step} | ({best} if best is not None else set()))
        self._log.impatient.event("saved", step=content.about.step, checkpoint=folder.name)

    def _prune(self, *, protected: set[int]) -> None:
        for step in superfluous(self._saved(), self.config, protected=protected):
            remove_checkpoint(self._checkpoints, step)
        while free_bytes(self._checkpoints) < self.config.keep_free_gb * 1e9:
            given_up = next_to_give_up(self._saved(), self.config, protected=protected)
            if given_up is None:
                return
            remove_checkpoint(self._checkpoints, given_up)

    def _saved(self) -> list[About]:
        steps = checkpoint_steps(self._checkpoints)
        return [about for step in steps if (about := read_about(self._checkpoints / str(step))) is not None]
