"""Models whose logits depend on later tokens, or on no tokens at all."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmplay.base.kv_cache import token_positions
from lmplay.exp.gpt2ish.model import GPT2
from tests.checks.families import Rotary, Scan


class FutureLeak(GPT2):
    """Adds the mean over the whole text."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h + h.mean(dim=1, keepdim=True)


class GatedLeak(FutureLeak):
    """The same behind a gate that starts at zero, as many published tricks do."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = nn.Parameter(torch.zeros(1))

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = GPT2.hidden(self, x, cache, documents)
        return h + self.gate * h.mean(dim=1, keepdim=True)


class LeakInTraining(FutureLeak):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(x, cache, documents) if self.training else GPT2.hidden(self, x, cache, documents)


class WithMask(GPT2):
    """Attends as `mask(T)` says."""

    def mask(self, length: int) -> Tensor:
        raise NotImplementedError

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = self.tok_embed(x) + F.embedding(token_positions(x), self.pos_embed[0])
        for block in self.blocks:
            h = block(h, mask=self.mask(x.size(1)).to(x.device))
        return self.ln(h)


class TransposedMask(WithMask):
    def mask(self, length: int) -> Tensor:
        return torch.ones(length, length, dtype=torch.bool).triu()


class MaskOffByOne(WithMask):
    def mask(self, length: int) -> Tensor:
        return torch.ones(length, length, dtype=torch.bool).tril(diagonal=1)


class BlindToTokens(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(torch.zeros_like(x), cache, documents)


class LooksAcrossBlocks(WithMask):
    """The last position of a block sees the first one of the next."""

    block = 28

    def mask(self, length: int) -> Tensor:
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        for first in range(self.block, length, self.block):
            mask[first - 1, first] = True
        return mask


class LooksAcrossLongBlocks(LooksAcrossBlocks):
    block = 64


class ScanAcrossChunks(Scan):
    """A chunk's last state has a bit of the next chunk's first token in it."""

    def mix(self, block: Any, h: Tensor, cache: Any, start: int) -> Tensor:
        out = super().mix(block, h, cache, start)
        following = torch.cat((h[:, 1:], h[:, :1]), 1)
        at_an_end = (torch.arange(1, h.size(1) + 1) % self.chunk == 0).unsqueeze(1)
        return out + 0.1 * following * at_an_end


class NormOverTime(GPT2):
    """Has mistaken the axis of its norm."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return (h - h.mean(1, keepdim=True)) / (h.std(1, keepdim=True) + 1e-5) if x.size(1) > 1 else h


class SoftmaxOverQueries(Rotary):
    """Weights add up to one over the queries, and not over the keys."""

    def attend(self, block: Any, h: Tensor, cache: Any, start: int) -> Tensor:
        q, v = block["q"](h), block["proj"](h)  # (B, T, D)
        scores = (q @ h.transpose(1, 2)).tril()
        out: Tensor = scores.softmax(dim=1).tril() @ v
        return out
