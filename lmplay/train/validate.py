"""A pass over the whole fixed validation part. Uses no randomness, leaves the model as it found it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lmplay.base.base_model import LMBase
from lmplay.modules.losses import IGNORE, cross_entropy_sum, linear_cross_entropy_and_hits
from lmplay.train.config import PrecisionName
from lmplay.train.device import arithmetic
from lmplay.train.feed import Piece, Rows, batches
from lmplay.train.step import hidden_of, logits_of


@dataclass(frozen=True)
class Validation:
    """Means over all target tokens of the validation part."""

    loss: float  # nats a token
    accuracy: float  # share of targets that have the largest logit
    targets: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def bits_per_byte(self, bytes_per_token: float) -> float:
        """The loss in bits over the mean length of a token in UTF-8 bytes: comparable across tokenizers."""
        return self.loss / math.log(2) / bytes_per_token


@torch.no_grad()
def validate(
    model: LMBase,
    rows: Rows,
    *,
    piece_size: int,
    precision: PrecisionName,
    device: torch.device,
    on_progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Loss and accuracy of `model` over all of `rows`, `piece_size` rows at a time. `on_progress` gets (rows done,
    all).
    """
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    targets = 0
    try:
        for batch in batches(
            rows, first_row=0, end_row=rows.num_rows, batch_size=piece_size, piece_size=piece_size, device=device
        ):
            for piece in batch.pieces:
                with arithmetic(precision, device):
                    piece_loss, piece_hits = _loss_and_hits(model, piece)
                loss += piece_loss
                hits += piece_hits
                targets += piece.num_targets
            if on_progress is not None:
                on_progress(batch.first_row + batch.samples, rows.num_rows)
    finally:
        model.train(was_training)
    counted = max(1, targets)
    return Validation(loss=float(loss) / counted, accuracy=int(hits) / counted, targets=targets)


def _loss_and_hits(model: LMBase, piece: Piece) -> tuple[Tensor, Tensor]:
    hidden = hidden_of(model)
    if hidden is not None:
        head = model.output_projection
        states = hidden(piece.tokens, **piece.borders)  # (b, T, D)
        return linear_cross_entropy_and_hits(states, head.weight, piece.targets, bias=head.bias)
    logits = logits_of(model, piece)  # (b, T, V)
    hits = ((logits.argmax(-1) == piece.targets) & (piece.targets != IGNORE)).sum()
    return cross_entropy_sum(logits, piece.targets), hits
