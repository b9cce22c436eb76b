"""Models that look wrong and are not."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmplay.base.base_model import LMBase
from lmplay.exp.gpt2ish.model import GPT2
from tests.checks.broken.learning import ForgottenGrad, SilentlyStraightThrough, SwitchedOff


class FrozenOnPurpose(ForgottenGrad):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_embed.freeze = True


class ZeroAtFirst(SwitchedOff):
    """Sound: the factor starts at zero and is learned, so the layer behind it wakes after a step."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = nn.Parameter(torch.zeros(1))

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = GPT2.hidden(self, x, cache, documents)
        return h + self.gate * self.extra(h)


class SomeExperts(SwitchedOff):
    """Sound: 24 experts, of which a token takes one, so that a batch may leave some out."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dim = self.ln.normalized_shape[0]
        self.router = nn.Linear(dim, 24, bias=False)
        self.extra = nn.ModuleList(nn.Linear(dim, dim) for _ in range(24))  # type: ignore[assignment]

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = GPT2.hidden(self, x, cache, documents)
        weight, chosen = self.router(h)[..., :23].softmax(-1).max(-1)  # (B, T); none goes to the last
        out = torch.zeros_like(h)
        for index in chosen.unique().tolist():
            out = torch.where((chosen == index).unsqueeze(-1), self.extra[index](h) * weight.unsqueeze(-1), out)  # type: ignore[index]
        return h + out


class DrawsFromPython(GPT2):
    """Sound: the trainer seeds and keeps Python's generator too."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h * (1 + 0.1 * random.random()) if self.training else h


class BreaksTheGraph(GPT2):
    """Sound, but compiled in two pieces."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        torch._dynamo.graph_break()
        return super().hidden(x, cache, documents)


class OneBlockTwice(GPT2):
    """`[Block()] * 2`: allowed, and to be seen."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks = nn.ModuleList([self.blocks[0]] * 2)


class StraightThrough(SilentlyStraightThrough):
    """Sound: says that it means it."""

    surrogate_gradients = True


class PlainList(LMBase):
    """Sound: written without lmplay's helpers, with a cache of its own in a plain list, and no `hidden`."""

    def __init__(self, max_len: int = 32, embed_dim: int = 32, **ignore: Any) -> None:
        super().__init__("plain_list", max_len=max_len, embed_dim=embed_dim)
        self.tok_embed = nn.Embedding(self.vocab_size, embed_dim)
        self.pos_embed = nn.Embedding(max_len, embed_dim)
        self.keys = nn.Linear(embed_dim, embed_dim)
        self.fc = nn.Linear(embed_dim, self.vocab_size)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor, cache: list[Tensor] | None = None) -> Any:
        past = cache[0] if cache else None
        start = 0 if past is None else past.size(1)
        length = x.size(1)
        h = self.tok_embed(x) + self.pos_embed(torch.arange(start, start + length, device=x.device))
        k = self.keys(h)  # (B, T, D)
        if past is not None:
            k = torch.cat((past, k), dim=1)
        mask = torch.ones(length, start + length, dtype=torch.bool, device=x.device).tril(diagonal=start)
        h = h + F.scaled_dot_product_attention(h, k, k, attn_mask=mask)
        if cache is None:
            return self.fc(h)
        cache[:] = [k]
        return self.fc(h[:, -1:]), cache
