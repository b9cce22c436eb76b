"""Looking at the model while it is trained: the loss on the validation part, and a sample. Changes nothing in it."""

from __future__ import annotations

import contextlib
import traceback

import torch

from lmplay.base.base_model import LMBase
from lmplay.data import ValidationData
from lmplay.generate import generate_text
from lmplay.train.config import TrainConfig
from lmplay.train.keep.randomness import preserved_randomness
from lmplay.train.orders import Orders
from lmplay.train.parallel.spread import apart_afterwards
from lmplay.train.parallel.world import World
from lmplay.train.report import Report
from lmplay.train.update.average import WeightAverage
from lmplay.train.update.compiling import uncompiled
from lmplay.train.update.memory import as_out_of_memory
from lmplay.train.update.objective import Objective
from lmplay.train.validate import Validation, validate


class Evaluation:
    """`average`, where the stage has one, is what is looked at instead of the weights that are trained."""

    def __init__(
        self,
        model: LMBase,
        data: ValidationData | None,
        *,
        report: Report,
        orders: Orders,
        device: torch.device,
        seed: int,
        world: World,
    ) -> None:
        self.model = model
        self.average: WeightAverage | None = None
        self.data = data
        self.report = report
        self.orders = orders
        self.device = device
        self.seed = seed
        self.world = world
        self._can_generate = True

    def loss(self, objective: Objective, config: TrainConfig, *, piece_size: int) -> Validation | None:
        """Over the whole validation part; logged, with a sample. `None` where the plan holds no text out."""
        if self.data is None:
            return None
        self.world.from_first(None)  # who still waits for the disk to take the newest rows is waited for here
        with self.report.activity("validating") as tell:
            with self._averaged(), as_out_of_memory():
                result = validate(
                    objective,
                    self.data,
                    piece_size=piece_size,
                    precision=config.precision,
                    device=self.device,
                    heed=self.orders.heed_stop,
                    tell=tell,
                    world=self.world,
                )
            sample = self.sample(config)
        self.report.validated(result, bytes_per_token=self.data.bytes_per_token, sample=sample)
        return result

    def sample(self, config: TrainConfig) -> str | None:
        """A short text of the model as it is now; in a process that has it for nobody, `None`."""
        if not config.sample_tokens or not self._can_generate:
            return None
        if not (self.world.is_first or self.world.shard):
            return None  # of a spread model every process computes each token
        try:
            with preserved_randomness(self.device), self._averaged(), uncompiled(), apart_afterwards(self.model):
                return config.sample_prompt + generate_text(
                    self.model, config.sample_prompt, max_tokens=config.sample_tokens, seed=self.seed
                )
        except Exception as error:  # noqa: BLE001 - a cache that isn't written yet is no reason to lose a training
            self._can_generate = False
            traceback.print_exc()
            self.report.warn(f"no more samples: generating failed with {error!r}")
            return None

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.average is None else self.average.in_place()
