"""Everything that a bit-identical continuation needs, taken from a training and put back into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import describe_model
from lmplay.train.course import Course
from lmplay.train.keep.checkpoint import About, Content, load_weights
from lmplay.train.keep.progress import Progress, StageProgress
from lmplay.train.keep.randomness import RandomState
from lmplay.train.update.average import WeightAverage
from lmplay.train.update.optimizers import set_hyperparameters
from lmplay.train.update.step import TrainStep


@dataclass
class Training:
    """What changes while a model is trained."""

    model: LMBase
    experiment: str
    course: Course
    step: TrainStep
    average: WeightAverage | None
    device: torch.device

    def content(self) -> Content:
        """What a checkpoint of this moment holds. Its tensors are the training's own: copy them before the next step.

        With a moving average, that is the model for everyone who loads it; the trained weights are in the state.
        """
        progress, stage = self.course.progress, self.course.stage
        about = About(
            step=progress.step,
            samples=progress.samples,
            tokens=progress.tokens,
            stage=stage.name,
            milestone=progress.milestone_step == progress.step,
            stage_end=progress.row >= stage.data.num_rows,
        )
        weights: dict[str, torch.Tensor] = self.model.state_dict(keep_vars=True)
        state = {
            "progress": progress.to_dict(),
            "rule": self._rule(),
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "random": RandomState.take(self.device).to_dict(),
            "environment": self._environment(),
        }
        if self.average is not None:
            state["weights"] = weights
            state["average"] = self.average.state_dict()
            weights = {name: self.average.of(tensor) for name, tensor in weights.items()}
        description = describe_model(self.model, experiment=self.experiment)
        return Content(about=about, description=description, weights=weights, state=state)

    def restore(self, folder: Path, state: Mapping[str, Any]) -> list[str]:
        """Stand where the checkpoint in `folder` with this trainer state stood, in the stage that the course is in.

        Returns what keeps the continuation from being exact.
        """
        self.model.load_state_dict(state["weights"] if "weights" in state else load_weights(folder))
        doubts = self._restore_rule(state)
        if self.average is not None:
            if "average" in state:
                self.average.load_state_dict(state["average"])
            else:
                self.average.restart()
                doubts.append("the moving average of the weights begins here")
        RandomState.from_dict(state["random"]).put_back(self.device)
        now = self._environment()
        doubts += [
            f"{name} was {then} and is now {now.get(name)}"
            for name, then in state["environment"].items()
            if now.get(name) != then
        ]
        return doubts

    def _restore_rule(self, state: Mapping[str, Any]) -> list[str]:
        """The optimizer goes on with the state that it left, unless it is another one now."""
        rule, was = self._rule(), state["rule"]
        if self.step.scaler.is_enabled() and state["scaler"]:
            self.step.scaler.load_state_dict(state["scaler"])
        if rule != was:
            return [f"the optimizer begins anew: it was {was}, and is now {rule}"]
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
