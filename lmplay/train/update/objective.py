"""From a piece of a batch to losses: the model's own, chunked without all logits, or plain. Built by the trainer.

A module around the model, so that what wraps a model for several processes sees one forward pass a piece. Parameters
keep the names that the model gives them: checkpoints are taken of `model`, never of the objective.
"""

from __future__ import annotations

from torch import Tensor, nn

from lmplay.base.base_model import LMBase, hidden_of
from lmplay.modules.losses import IGNORE, cross_entropy_sum, linear_cross_entropy_and_hits, linear_cross_entropy_sum
from lmplay.train.config import LossForm
from lmplay.train.feed import Piece
from lmplay.utils.errors import WrongUsageError


class Objective(nn.Module):
    """`objective(piece)` -> {"loss": sum over the piece's targets in nats, other terms likewise}.

    A model with `train_loss` computes its own; one with `hidden` takes the memory-saving form unless `form` is
    `plain`; `forward` alone is enough for the plain one.
    """

    def __init__(self, model: LMBase, form: LossForm = "auto") -> None:
        super().__init__()
        self.model = model
        self.form = form

    def forward(self, piece: Piece, *, evaluate: bool = False) -> dict[str, Tensor]:
        """With `evaluate`: {"loss": ..., "hits": targets that have the largest logit}, both sums, of the plain loss."""
        if evaluate:
            return self._evaluate(piece)
        own = getattr(self.model, "train_loss", None)
        if own is not None:
            return {name: term * piece.num_targets for name, term in own(piece).items()}
        head = plain_head(self.model) if self.form != "plain" else None
        if head is not None:
            states = hidden_states(self.model, piece)  # (b, T, D)
            return {"loss": linear_cross_entropy_sum(states, head.weight, piece.targets, bias=head.bias)}
        return {"loss": cross_entropy_sum(logits_of(self.model, piece), piece.targets)}

    def _evaluate(self, piece: Piece) -> dict[str, Tensor]:
        head = plain_head(self.model)
        if head is not None:
            states = hidden_states(self.model, piece)  # (b, T, D)
            loss, hits = linear_cross_entropy_and_hits(states, head.weight, piece.targets, bias=head.bias)
            return {"loss": loss, "hits": hits}
        logits = logits_of(self.model, piece)  # (b, T, V)
        hits = ((logits.argmax(-1) == piece.targets) & (piece.targets != IGNORE)).sum()
        return {"loss": cross_entropy_sum(logits, piece.targets), "hits": hits}


def plain_head(model: LMBase) -> nn.Linear | None:
    """The layer from hidden states to logits where it is a matrix product and nothing else, so that the loss may take
    its weight instead of calling it.
    """
    if hidden_of(model) is None:
        return None
    head = model.output_projection
    hooked = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks
    return head if type(head).forward is nn.Linear.forward and not hooked else None


def hidden_states(model: LMBase, piece: Piece) -> Tensor:
    """What goes into the head, (b, T, D). Borders of documents reach a model through its `hidden`."""
    hidden = hidden_of(model)
    if hidden is None:
        raise WrongUsageError(
            f"{type(model).__name__} defines no hidden(x, cache, documents), so it cannot tell the documents of a "
            "packed row apart; train it with data.packing=stream or pad"
        )
    return hidden(piece.tokens, **piece.borders)


def logits_of(model: LMBase, piece: Piece) -> Tensor:
    """All logits of a piece, (b, T, V)."""
    if piece.documents is None:
        logits: Tensor = model(piece.tokens)
        return logits
    packed: Tensor = model.output_projection(hidden_states(model, piece))
    return packed
