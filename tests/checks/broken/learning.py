"""Models of which a part learns nothing or too much, and whose loss is another than they say."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmplay.base.kv_cache import layer_cache, token_positions
from lmplay.exp.gpt2ish.model import GPT2


class ForgottenGrad(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_embed.requires_grad_(False)


class UnusedHead(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = nn.Linear(4, 4)


class SwitchedOff(GPT2):
    """A layer that counts for nothing."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = nn.Linear(self.ln.normalized_shape[0], self.ln.normalized_shape[0])

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h + 0.0 * self.extra(h)


class Exploding(GPT2):
    """A factor of ten million on the way to the first layers."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = self.tok_embed(x) + F.embedding(token_positions(x, cache), self.pos_embed[0])
        h = h.detach() + (h - h.detach()) * 1e7
        for index, block in enumerate(self.blocks):
            h = block(h, cache=layer_cache(cache, index))
        return self.ln(h)


class NotANumber(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h + 0.01 * h.log()


class Deaf(GPT2):
    """Learns nothing that would reach its logits."""

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        logits = super().forward(x, cache)
        return logits * 1e-6 if cache is None else logits


class SureAtFirst(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        nn.init.normal_(self.fc.weight, std=2.0)


class KnowsTooMuch(GPT2):
    """Cheats: its logits are high where the next token stands in the text."""

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        logits = super().forward(x, cache)
        if cache is None:
            logits = logits + 9.0 * F.one_hot(x.roll(-1, dims=1), logits.size(-1))
        return logits


class TwoTruths(GPT2):
    """`forward` computes something else than `hidden` and the output projection."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(x, cache, documents)

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        logits = super().forward(x, cache)
        return logits * 2 if cache is None else logits


class LossAlone(GPT2):
    def train_loss(self, batch: Any) -> Any:
        return F.cross_entropy(self(batch.tokens).flatten(0, 1), batch.targets.flatten())


class LossOfItsInput(GPT2):
    """Has forgotten the shift: learns to repeat the token it is given."""

    def train_loss(self, batch: Any) -> Any:
        return {"loss": F.cross_entropy(self(batch.tokens).flatten(0, 1), batch.tokens.flatten())}


class NeedsFloat32(GPT2):
    """Adds and takes away what bfloat16 cannot hold beside the rest."""

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        logits = super().forward(x, cache)
        return (logits + 64.0) - 64.0 if cache is None else logits


class CompiledDiffers(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h * 1.5 if torch.compiler.is_compiling() else h


class CutResidual(GPT2):
    """Gradients reach the first layers through the attention alone."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = self.tok_embed(x) + F.embedding(token_positions(x, cache), self.pos_embed[0])
        for index, block in enumerate(self.blocks):
            h = h.detach() + (block(h, cache=layer_cache(cache, index)) - h)
        return self.ln(h)


class SilentlyStraightThrough(GPT2):
    """Rounds on the way forward and not on the way back."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h + ((h * 4).round() / 4 - h).detach()


class TiedByData(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fc.weight.data = self.tok_embed.weight.data


class PositionsNotTrained(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = self.tok_embed(x) + F.embedding(token_positions(x, cache), self.pos_embed.detach()[0])
        for index, block in enumerate(self.blocks):
            h = block(h, cache=layer_cache(cache, index))
        return self.ln(h)


class LossByRow(GPT2):
    """The mean over rows of each row's mean: a row of which little is learned weighs as much as a whole one."""

    def train_loss(self, batch: Any) -> Any:
        losses = F.cross_entropy(self(batch.tokens).transpose(1, 2), batch.targets, reduction="none")  # (B, T)
        counted = (batch.targets >= 0).sum(1).clamp(min=1)
        return {"loss": (losses.sum(1) / counted).mean()}


class LossOfEveryTarget(GPT2):
    """Knows of no targets that do not count."""

    def train_loss(self, batch: Any) -> Any:
        return {"loss": F.cross_entropy(self(batch.tokens).flatten(0, 1), batch.targets.clamp(min=0).flatten())}


class Overflowing(GPT2):
    """A product far above what float16 holds, which a norm hides again."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return self.ln(self.blocks[0].ff.up(h * 3e5)[..., : h.size(-1)])
