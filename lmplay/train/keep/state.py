"""Everything that a bit-identical continuation needs, taken from a training and put back into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmplay.base.base_model import LMBase
from lmplay.train.course import Course
from lmplay.train.keep.checkpoint import SHARDS, About, Content, load_weights
from lmplay.train.keep.progress import Progress, StageProgress
from lmplay.train.keep.randomness import RandomState
from lmplay.train.parallel.tensors import local, whole
from lmplay.train.parallel.world import World
from lmplay.train.update.average import WeightAverage
from lmplay.train.update.optimizers import set_hyperparameters
from lmplay.train.update.step import TrainStep


@dataclass
class Training:
    """What changes while a model is trained."""

    model: LMBase
    description: Mapping[str, Any]  # model.json
    course: Course
    step: TrainStep
    average: WeightAverage | None
    device: torch.device
    world: World
    checkpoints: Path
    wait_for_bytes: Callable[[int], None]

    def content(self) -> Content:
        """What a checkpoint of this moment holds. Its tensors are the training's own: copy them before the next step.

        With a moving average, that is the model for everyone who loads it; the trained weights are in the state.
        """
        progress, stage = self.course.progress, self.course.stage
        random = self.world.gathered(RandomState.take(self.device).to_dict())
        about = About(
            step=progress.step,
            samples=progress.samples,
            tokens=progress.tokens,
            stage=stage.name,
            milestone=progress.milestone_step == progress.step,
            stage_end=progress.row >= stage.data.num_rows,
        )
        weights: dict[str, Tensor] = self.model.state_dict(keep_vars=True)
        state: dict[str, Any] = {
            "progress": progress.to_dict(),
            "rule": self._rule(),
            "scaler": self.step.scaler.state_dict(),
            "random": random[0],
            "environment": self._environment(),
        }
        if len(random) > 1:
            state["random_of_others"] = random[1:]
        own: dict[str, Mapping[str, Tensor]] = {}
        if self.average is not None:
            own = {"weights": weights, "average": self.average.state_dict()}
            weights = {name: self.average.of(tensor) for name, tensor in weights.items()}
        if self.world.shard:
            shards = self._write_shards(state, own)
            # One tensor at a time is whole in a device's memory; all of them, where they are written.
            gathered = ((name, whole(tensor).cpu()) for name, tensor in weights.items())
            weights = {name: tensor for name, tensor in gathered if self.world.is_first}
        else:
            shards = None
            state |= {"optimizer": self.step.optimizer.state_dict(), **own}
        return Content(about=about, description=self.description, weights=weights, state=state, shards=shards)

    def _write_shards(self, state: dict[str, Any], own: Mapping[str, Mapping[str, Tensor]]) -> Path:
        """Each process's part of what is spread over them, into a folder beside the checkpoints; the rest into
        `state`.
        """
        from lmplay.train.parallel.shards import take_optimizer_apart, write_shards

        state["tables"] = list(own)
        state["optimizer_groups"], tensors = take_optimizer_apart(self.step.optimizer)
        for table, named in own.items():
            tensors.update({f"{table}/{name}": tensor.detach() for name, tensor in named.items()})
        self.wait_for_bytes(self.world.size * sum(local(tensor).nbytes for tensor in tensors.values()))
        folder = self.checkpoints / f".{self.course.progress.step}.shards.tmp"
        write_shards(folder, tensors, self.world)
        return folder

    def restore(self, folder: Path, state: Mapping[str, Any]) -> list[str]:
        """Stand where the checkpoint in `folder` with this trainer state stood, in the stage that the course is in.

        Returns what keeps the continuation from being exact.
        """
        averaged = self._restore_tables(folder, state)
        doubts = self._restore_rule(state, folder / SHARDS)
        if self.average is not None and not averaged:
            self.average.restart()
            doubts.append("the moving average of the weights begins here")
        doubts += self._restore_randomness(state)
        now = self._environment()
        doubts += [
            f"{name} was {then} and is now {now.get(name)}"
            for name, then in state["environment"].items()
            if now.get(name) != then
        ]
        return doubts

    def _restore_tables(self, folder: Path, state: Mapping[str, Any]) -> bool:
        """The weights, and their average where there is one to be had; returns whether there was."""
        if "tables" in state:
            from lmplay.train.parallel.shards import read_shards

            tables: dict[str, Mapping[str, Tensor]] = {"weights": self.model.state_dict()}
            if self.average is not None:
                tables["average"] = self.average.state_dict()
            here = {name: tables[name] for name in state["tables"] if name in tables}
            into = {f"{table}/{name}": tensor for table, named in here.items() for name, tensor in named.items()}
            if into:
                read_shards(folder / SHARDS, into)
                return "average" in here
        weights = state["weights"] if "weights" in state else load_weights(folder)
        self.model.load_state_dict(self._spread(weights, self.model.state_dict()))
        if self.average is None or "average" not in state:
            return False
        self.average.load_state_dict(self._spread(state["average"], self.average.state_dict()))
        return True

    def _spread(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Whole tensors, as they are or, for a spread model, as its own are spread."""
        if not self.world.shard:
            return tensors
        from lmplay.train.parallel.shards import spread_like

        return {name: spread_like(like[name], tensor) for name, tensor in tensors.items()}

    def _restore_randomness(self, state: Mapping[str, Any]) -> list[str]:
        """Each process goes on with the numbers that it left, unless there are more or fewer of them now."""
        saved = [state["random"], *state.get("random_of_others", ())]
        if self.world.rank < len(saved):
            RandomState.from_dict(saved[self.world.rank]).put_back(self.device)
        else:
            self.world.seed(self.course.progress.step)
        if len(saved) == self.world.size:
            return []
        return [f"the number of processes was {len(saved)} and is now {self.world.size}"]

    def _restore_rule(self, state: Mapping[str, Any], shards: Path) -> list[str]:
        """The optimizer goes on with the state that it left, unless it is another one now."""
        rule, was = self._rule(), state["rule"]
        if self.step.scaler.is_enabled() and state["scaler"]:
            self.step.scaler.load_state_dict(state["scaler"])
        if rule != was:
            return [f"the optimizer begins anew: it was {was}, and is now {rule}"]
        if "optimizer_groups" in state:
            from lmplay.train.parallel.shards import put_optimizer_together

            put_optimizer_together(self.step.optimizer, state["optimizer_groups"], shards)
        elif self.world.shard:
            from lmplay.train.parallel.shards import spread_optimizer_state

            spread_optimizer_state(self.step.optimizer, state["optimizer"])
        else:
            self.step.optimizer.load_state_dict(state["optimizer"])
        set_hyperparameters(self.step.optimizer, self.course.stage.config)
        return []

    def _rule(self) -> str:
        """Names the optimizer and what it trains: its state fits no other."""
        trained = sum(1 for parameter in self.model.parameters() if parameter.requires_grad)
        return f"{self.course.stage.config.optimizer} of {trained} tensors"

    def _environment(self) -> dict[str, Any]:
        """What the last bits of a sum depend on."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {"torch": str(torch.__version__), "device": name, "threads": torch.get_num_threads()}


def progress_of(state: Mapping[str, Any], course: Course) -> Progress:
    """The counters in a trainer state, with the stages that the plan has now."""
    progress = Progress.from_dict(state["progress"])
    progress.stages += [StageProgress(stage.name) for stage in course.stages[len(progress.stages) :]]
    return progress
