"""One optimizer update: forward and backward over the pieces, clip, step.

The targets of the whole effective batch are counted first and the loss is a sum over that count, so the size of the
pieces never changes the result. Nothing in here waits for the device: results stay tensors until they are logged.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from lmplay.base.base_model import LMBase
from lmplay.train.config import TrainConfig
from lmplay.train.device import arithmetic
from lmplay.train.feed import DeviceBatch, Piece
from lmplay.train.parallel.spread import Summing, summing
from lmplay.train.parallel.world import World
from lmplay.train.update.clipping import clipped_step, gradient_norm
from lmplay.train.update.diagnostics import Diagnostics
from lmplay.train.update.memory import as_out_of_memory
from lmplay.train.update.objective import Objective

Phase = Callable[[str], AbstractContextManager[object]]


@dataclass
class StepResult:
    """What one update gives to the log; scalars on the device."""

    loss: Tensor  # mean over all target tokens of the batch, in nats
    grad_norm: Tensor  # before clipping
    finite: Tensor  # bool: False where the update was skipped
    figures: dict[str, Tensor] = field(default_factory=dict)  # a model's own terms, fp16's factor, measurements


class TrainStep:
    """`step(batch, lr)` makes one update of `model` and returns what to log.

    Raises `OutOfMemory` where a piece does not fit: then weights and optimizer are as they were.
    """

    def __init__(
        self,
        model: LMBase,
        optimizer: Optimizer,
        config: TrainConfig,
        device: torch.device,
        world: World | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.config = config
        self.device = device
        self.world = world or World()
        self.objective = Objective(model, config.loss)
        self._summing = summing(self.objective, self.world)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.phase: Phase = torch.profiler.record_function
        """Around `forward`, `backward` and `optimizer`: names them in a profile, or measures them."""

    def __call__(self, batch: DeviceBatch, lr: float, *, watch: Diagnostics | None = None) -> StepResult:
        with as_out_of_memory():
            terms = self.accumulate(batch, watch=watch)
        terms = self._summed(terms)
        loss = terms.pop("loss")
        with self.phase("optimizer"):
            self.scaler.unscale_(self.optimizer)
            grad_norm = gradient_norm([p.grad for p in self.trained if p.grad is not None])
            finite = torch.isfinite(grad_norm) & torch.isfinite(loss)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            clipped_step(self.optimizer, grad_norm=grad_norm, largest=self.config.grad_clip, finite=finite)
            if self.scaler.is_enabled():
                terms["loss_scale"] = self._loss_scale()
            self.scaler.update()
        figures = watch.after_update(grad_norm, batch.num_targets) if watch is not None else {}
        return StepResult(loss=loss, grad_norm=grad_norm, finite=finite, figures={**terms, **figures})

    def accumulate(
        self, batch: DeviceBatch, *, watch: Diagnostics | None = None, together: bool = True
    ) -> dict[str, Tensor]:
        """Leave the gradient of the batch's mean loss in `.grad`; return the mean of each term over its targets.

        Of several processes, each returns what its own pieces contribute to the means. With `together` off the
        gradient is that of this process's pieces, too.
        """
        self.optimizer.zero_grad(set_to_none=True)
        pieces = [piece for piece in batch.pieces if piece.num_targets or piece.stands_in]
        if not pieces:
            return {"loss": torch.full((), torch.nan, device=self.device)}
        means: dict[str, Tensor] = {}

        def add(terms: dict[str, Tensor], piece: Piece) -> None:
            with self.phase("backward"):
                total = torch.stack(list(terms.values())).sum()
                self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                means[name] = means[name] + term.detach() if name in means else term.detach()
            if watch is not None:
                watch.after_piece(piece.num_targets, batch.num_targets, scale=self._loss_scale())

        summing = self._summing if together else Summing(self.objective)
        *earlier, last = pieces
        with summing.before_summing():
            for piece in earlier:
                with summing.held_back():
                    add(self._forward(piece, batch.num_targets, summing), piece)
            terms = self._forward(last, batch.num_targets, summing)
        with summing.while_summing():
            add(terms, last)
        return means

    def _forward(self, piece: Piece, num_targets: int, summing: Summing) -> dict[str, Tensor]:
        """A piece's share of each term's mean."""
        with self.phase("forward"), arithmetic(self.config.precision, self.device):
            terms: dict[str, Tensor] = summing.objective(piece)
            if piece.stands_in:
                terms = {name: term * 0.0 for name, term in terms.items()}
            return {name: _wide(term) / num_targets for name, term in terms.items()}

    def _loss_scale(self) -> Tensor:
        """What fp16 multiplies the loss with, as it is now; 1 elsewhere."""
        return self.scaler.scale(torch.ones((), device=self.device))

    def _summed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The means over the whole batch."""
        if self.world.size == 1:
            return terms
        names = sorted(terms)
        return dict(zip(names, self.world.add(torch.stack([terms[name] for name in names])).unbind(), strict=True))


def _wide(term: Tensor) -> Tensor:
    return term.float() if term.dtype.itemsize < 4 else term
