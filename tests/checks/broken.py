"""Models that are wrong on purpose, each in one way, and some that look wrong and are not. Used by test_checks.py."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmplay.base.base_model import LMBase
from lmplay.base.kv_cache import layer_cache, token_positions
from lmplay.exp.gpt2ish.model import GPT2


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


class Cached(GPT2):
    """GPT-2 with the parts of its cached path taken out, so that each can be broken."""

    def positions(self, x: Tensor, cache: Any) -> Tensor:
        return token_positions(x, cache)

    def layer(self, cache: Any, index: int) -> Any:
        return layer_cache(cache, index)

    def mask(self, x: Tensor, cache: Any) -> Tensor | None:
        return None

    supports_left_padding = False

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = self.tok_embed(x) + F.embedding(self.positions(x, cache), self.pos_embed[0])
        mask = self.mask(x, cache)
        for index, block in enumerate(self.blocks):
            h = block(h, cache=self.layer(cache, index), mask=mask)
        return self.ln(h)


class WrongPositions(Cached):
    """Each new token believes to be the first."""

    def positions(self, x: Tensor, cache: Any) -> Tensor:
        return token_positions(x)


class PositionsByRows(Cached):
    """Counts what is cached over all rows: right for one row."""

    def positions(self, x: Tensor, cache: Any) -> Tensor:
        start = 0 if not cache or cache[0].keys is None else cache[0].length * x.size(0)
        return (torch.arange(x.size(1)) + start).clamp(max=self.max_len - 1).unsqueeze(0)


class CacheNotRead(Cached):
    def positions(self, x: Tensor, cache: Any) -> Tensor:
        return token_positions(x)

    def layer(self, cache: Any, index: int) -> Any:
        return None


class ForgetsTheBatch(Cached):
    """Keeps one row for all."""

    class Layer:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            keys, values = self.inner.update(k, v)
            return keys[:1].expand_as(keys), values[:1].expand_as(values)

    def layer(self, cache: Any, index: int) -> Any:
        return None if cache is None else self.Layer(layer_cache(cache, index))


class ChunkSeesItself(Cached):
    """A chunk after a cache that is not empty has no causality inside of it."""

    def mask(self, x: Tensor, cache: Any) -> Tensor | None:
        start = cache[0].length if cache else 0
        return torch.ones(x.size(1), start + x.size(1), dtype=torch.bool) if start and x.size(1) > 1 else None


class IgnoresPadding(Cached):
    supports_left_padding = True


class NoCache(GPT2):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.fc(self.hidden(x))
        return logits


class AllLogitsWithCache(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        logits = self.fc(self.hidden(x, cache))
        return logits if cache is None else (logits, cache)


class LogitsAloneWithCache(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        return self.fc(self.hidden(x, cache))


class ForgottenGrad(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_embed.requires_grad_(False)


class FrozenOnPurpose(ForgottenGrad):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_embed.freeze = True


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


class DrawsFromPython(GPT2):
    """Sound: the trainer seeds and keeps Python's generator too."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h * (1 + 0.1 * random.random()) if self.training else h


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


class Deaf(GPT2):
    """Learns nothing that would reach its logits."""

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        logits = super().forward(x, cache)
        return logits * 1e-6 if cache is None else logits


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


class NeedsFloat32(GPT2):
    """Adds and takes away what bfloat16 cannot hold beside the rest."""

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        logits = super().forward(x, cache)
        return (logits + 64.0) - 64.0 if cache is None else logits


class BreaksTheGraph(GPT2):
    """Sound, but compiled in two pieces."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        torch._dynamo.graph_break()
        return super().hidden(x, cache, documents)


class CompiledDiffers(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        return h * 1.5 if torch.compiler.is_compiling() else h


class Raises(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes\ncannot be multiplied")


class ReturnsPair(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        return super().forward(x, cache), cache


class ShortTable(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_embed = nn.Parameter(self.pos_embed[:, 1:].detach())


class WritesIntoItsInput(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        x[:, 0] = 0
        return super().forward(x, cache)


class Answers(GPT2):
    """Changes what comes back without a cache."""

    def answer(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        answer = super().forward(x, cache)
        return self.answer(answer) if cache is None else answer


class TransposedLogits(Answers):
    def answer(self, logits: Tensor) -> Tensor:
        return logits.transpose(1, 2)


class Probabilities(Answers):
    def answer(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)


class WholeNumbers(Answers):
    def answer(self, logits: Tensor) -> Tensor:
        return logits.long()


class FewLogits(Answers):
    def answer(self, logits: Tensor) -> Tensor:
        return logits[..., :99]


class LossAlone(GPT2):
    def train_loss(self, batch: Any) -> Any:
        return F.cross_entropy(self(batch.tokens).flatten(0, 1), batch.targets.flatten())


class LossOfItsInput(GPT2):
    """Has forgotten the shift: learns to repeat the token it is given."""

    def train_loss(self, batch: Any) -> Any:
        return {"loss": F.cross_entropy(self(batch.tokens).flatten(0, 1), batch.tokens.flatten())}


class OneBlockTwice(GPT2):
    """`[Block()] * 2`: allowed, and to be seen."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks = nn.ModuleList([self.blocks[0]] * 2)


class Bare(LMBase):
    """Its layer is in a plain list, so torch does not know of it."""

    def __init__(self, max_len: int = 32, num_blocks: int = 1, embed_dim: int = 8, num_heads: int = 1) -> None:
        super().__init__("bare", max_len=max_len)
        self.layers = [nn.Embedding(self.vocab_size, embed_dim)]

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        return self.layers[0](x)


class Talkative(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        print("x is", x.shape)  # noqa: T201
        return super().forward(x, cache)


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
