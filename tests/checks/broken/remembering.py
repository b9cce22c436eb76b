"""Models whose result depends on other rows, on earlier passes, or on what no seed governs."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmplay.exp.gpt2ish.model import GPT2
from tests.checks.families import TopTwoExperts


class DropoutAlwaysOn(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return F.dropout(super().hidden(x, cache, documents), 0.1)


class StaysInTraining(GPT2):
    def train(self, mode: bool = True) -> GPT2:
        super().train(mode)
        self.dropout.training = True
        return self


class CallsEval(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        self.eval()
        return super().forward(x, cache)


class SharesRows(GPT2):
    """Subtracts the mean over the batch."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h - 0.5 * h.mean(dim=0, keepdim=True)


class BatchNormed(GPT2):
    """Shares statistics among rows in training mode only."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = nn.BatchNorm1d(self.ln.normalized_shape[0])

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return self.norm(h.transpose(1, 2)).transpose(1, 2)


class OtherRandomness(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.noise = nn.Parameter(torch.tensor([random.SystemRandom().random()]))

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(x, cache, documents) * self.noise


class Counts(GPT2):
    """Each pass leaves something behind for the next."""

    passes = 0

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        self.passes += 1
        return super().hidden(x, cache, documents) * (1 + 0.01 * self.passes)


class Unsaved(GPT2):
    """A table that is drawn at random and not saved."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = torch.rand(self.ln.normalized_shape[0])

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(x, cache, documents) + self.table


class SeedsItself(GPT2):
    """Wants to be reproducible, and draws the same dropout at each step."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        torch.manual_seed(0)
        return super().hidden(x, cache, documents)


class DrawsAlways(GPT2):
    """Asks for a random number before it asks whether it is training."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h * 2 if torch.rand(()) < 0.1 and self.training else h


class CountsInABuffer(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("tokens_seen", torch.zeros(1))

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        self.tokens_seen += x.numel()
        return super().hidden(x, cache, documents)


class NormalisesWeights(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        weight = self.tok_embed.weight.data
        weight.div_(weight.norm(dim=-1, keepdim=True))
        return super().hidden(x, cache, documents)


class CapacityOfTheBatch(TopTwoExperts):
    """Experts take the first tokens of the whole batch and leave those that come late without."""

    def routed(self, shares: Tensor) -> Tensor:
        weights = super().routed(shares).flatten(0, 1)  # (B * T, 4)
        free = (weights > 0).cumsum(0) <= 10
        return (weights * free).view_as(shares)


class IgnoresDocuments(GPT2):
    """Takes the borders of a packed row and does nothing about them."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(x, cache)
