"""One optimizer update: forward and backward over the pieces, clip, step.

The targets of the whole effective batch are counted first and the loss is a sum over that count, so the size of the
pieces never changes the result. Nothing in here waits for the device: results stay tensors until they are logged.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmplay.base.base_model import LMBase
from lmplay.train.config import TrainConfig
from lmplay.train.device import arithmetic
from lmplay.train.feed import DeviceBatch, Piece
from lmplay.train.update.diagnostics import Diagnostics
from lmplay.train.update.memory import as_out_of_memory
from lmplay.train.update.objective import Objective
from lmplay.train.update.skipping import step_if

Phase = Callable[[str], AbstractContextManager[object]]


@dataclass
class StepResult:
    """What one update gives to the log; scalars on the device."""

    loss: Tensor  # mean over all target tokens of the batch, in nats
    grad_norm: Tensor  # before clipping
    finite: Tensor  # bool: False where the update was skipped
    figures: dict[str, Tensor] = field(default_factory=dict)  # what a model's train_loss added, and measurements


class TrainStep:
    """`step(batch, lr)` makes one update of `model` and returns what to log.

    Raises `OutOfMemory` where a piece does not fit: then weights and optimizer are as they were.
    """

    def __init__(self, model: LMBase, optimizer: Optimizer, config: TrainConfig, device: torch.device) -> None:
        self.model = model
        self.optimizer = optimizer
        self.config = config
        self.device = device
        self.objective = Objective(model, config.loss)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.phase: Phase = torch.profiler.record_function
        """Around `forward`, `backward` and `optimizer`: names them in a profile, or measures them."""

    def __call__(self, batch: DeviceBatch, lr: float, *, watch: Diagnostics | None = None) -> StepResult:
        with as_out_of_memory():
            terms = self.accumulate(batch, watch=watch)
        loss = terms.pop("loss")
        with self.phase("optimizer"):
            grad_norm = self._clip()
            finite = torch.isfinite(grad_norm) & torch.isfinite(loss)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            step_if(finite, self.optimizer)
            self.scaler.update()
        figures = watch.after_update(grad_norm, batch.num_targets) if watch is not None else {}
        return StepResult(loss=loss, grad_norm=grad_norm, finite=finite, figures={**terms, **figures})

    def accumulate(self, batch: DeviceBatch, *, watch: Diagnostics | None = None) -> dict[str, Tensor]:
        """Leave the gradient of the batch's mean loss in `.grad`; return the mean of each term over its targets."""
        self.optimizer.zero_grad(set_to_none=True)
        means: dict[str, Tensor] = {}
        for piece in batch.pieces:
            if piece.num_targets == 0:
                continue
            for name, term in self._backward(piece, batch.num_targets).items():
                means[name] = means[name] + term if name in means else term
            if watch is not None:
                watch.after_piece(piece.num_targets, batch.num_targets)
        return means or {"loss": torch.full((), torch.nan, device=self.device)}

    def _backward(self, piece: Piece, num_targets: int) -> dict[str, Tensor]:
        """Add a piece's share of the gradient; returns its share of each term's mean."""
        with self.phase("forward"), arithmetic(self.config.precision, self.device):
            terms = {name: _wide(term) / num_targets for name, term in self.objective(piece).items()}
            total = torch.stack(list(terms.values())).sum()
        with self.phase("backward"):
            self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    def _clip(self) -> Tensor:
        """Scale the gradient down to `grad_clip`; returns its norm before."""
        self.scaler.unscale_(self.optimizer)
        grad_norm = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        if self.config.grad_clip:
            nn.utils.clip_grads_with_norm_(self.trained, self.config.grad_clip, grad_norm)
        return grad_norm


def _wide(term: Tensor) -> Tensor:
    return term.float() if term.dtype.itemsize < 4 else term
