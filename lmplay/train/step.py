"""One optimizer update: forward and backward over the pieces, clip, step.

The targets of the whole effective batch are counted first and the loss is a sum over that count, so the size of the
pieces never changes the result. Nothing in here waits for the device: results stay tensors until they are logged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from lmplay.base.base_model import LMBase
from lmplay.modules.losses import cross_entropy_sum, linear_cross_entropy_sum
from lmplay.train.config import TrainConfig
from lmplay.train.device import arithmetic
from lmplay.train.feed import DeviceBatch, Piece
from lmplay.utils.errors import WrongUsageError

# Their fused kernels leave weights and state alone when `found_inf` is set, without asking the host.
SKIP_ON_DEVICE = (torch.optim.AdamW, torch.optim.Adam, torch.optim.Adagrad)

LossFunction = Callable[[Piece], dict[str, Tensor]]


@dataclass
class StepResult:
    """What one update gives to the log; scalars on the device."""

    loss: Tensor  # mean over all target tokens of the batch, in nats
    grad_norm: Tensor  # before clipping
    finite: Tensor  # bool: False where the update was skipped
    terms: dict[str, Tensor] = field(default_factory=dict)  # what a model's train_loss added, by name


def loss_function(model: LMBase, form: str) -> LossFunction:
    """How `model` turns a piece into losses: {"loss": sum over the piece's targets, in nats, other terms likewise}.

    `form` is `plain`, `chunked` or `auto`. A model with `train_loss` computes its own; one with `hidden` can take the
    memory-saving form; `forward` alone is enough for the plain one.
    """
    own = getattr(model, "train_loss", None)
    if own is not None:
        return lambda piece: {name: term * piece.num_targets for name, term in own(piece).items()}
    hidden = hidden_of(model)
    if hidden is not None and form != "plain":
        head = model.output_projection

        def chunked(piece: Piece) -> dict[str, Tensor]:
            states = hidden(piece.tokens, **piece.borders)  # (b, T, D)
            return {"loss": linear_cross_entropy_sum(states, head.weight, piece.targets, bias=head.bias)}

        return chunked
    return lambda piece: {"loss": cross_entropy_sum(logits_of(model, piece), piece.targets)}


def hidden_of(model: LMBase) -> Callable[..., Tensor] | None:
    """The model's `hidden`, unless a subclass changed `forward` alone: then the inherited one is not what it
    computes.
    """
    mro = type(model).__mro__
    places = {name: next((i for i, c in enumerate(mro) if name in vars(c)), None) for name in ("hidden", "forward")}
    if places["hidden"] is None or places["forward"] is None or places["forward"] < places["hidden"]:
        return None
    hidden: Callable[..., Tensor] = model.hidden  # type: ignore[assignment]
    return hidden


def logits_of(model: LMBase, piece: Piece) -> Tensor:
    """All logits of a piece, (b, T, V). Borders of documents reach a model through its `hidden`."""
    if piece.documents is None:
        logits: Tensor = model(piece.tokens)
        return logits
    hidden = hidden_of(model)
    if hidden is None:
        raise WrongUsageError(
            f"{type(model).__name__} defines no hidden(x, cache, documents), so it cannot tell the documents of a "
            "packed row apart; train it with data.packing=stream or pad"
        )
    packed: Tensor = model.output_projection(hidden(piece.tokens, documents=piece.documents))
    return packed


class TrainStep:
    """`step(batch, lr)` makes one update of `model` and returns what to log."""

    def __init__(self, model: LMBase, optimizer: Optimizer, config: TrainConfig, device: torch.device) -> None:
        self.model = model
        self.optimizer = optimizer
        self.config = config
        self.device = device
        self.losses = loss_function(model, config.loss)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def __call__(self, batch: DeviceBatch, lr: float) -> StepResult:
        sums = self.accumulate(batch)
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.trained if parameter.grad is not None]
        grad_norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(self.trained, self.config.grad_clip, grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        finite = torch.isfinite(grad_norm)
        self._update(finite)
        loss = sums.pop("loss")
        return StepResult(loss=loss, grad_norm=grad_norm, finite=finite, terms=sums)

    def accumulate(self, batch: DeviceBatch) -> dict[str, Tensor]:
        """Leave the gradient of the batch's mean loss in `.grad`; return the mean of each term over its targets."""
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for piece in batch.pieces:
            if piece.num_targets == 0:
                continue
            with arithmetic(self.config.precision, self.device):
                terms = {name: term / batch.num_targets for name, term in self.losses(piece).items()}
                total = torch.stack(
                    [term.float() if term.dtype.itemsize < 4 else term for term in terms.values()]
                ).sum()
            self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                sums[name] = sums[name] + term.detach() if name in sums else term.detach()
        return sums or {"loss": torch.full((), torch.nan, device=self.device)}

    def _update(self, finite: Tensor) -> None:
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif isinstance(self.optimizer, SKIP_ON_DEVICE) and self.optimizer.defaults["fused"]:
            self.optimizer.grad_scale = None  # type: ignore[union-attr]
            self.optimizer.found_inf = (~finite).float()  # type: ignore[union-attr]
            self.optimizer.step()
        elif bool(finite):
            self.optimizer.step()
