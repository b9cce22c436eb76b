"""Models whose path with a cache computes something else than the one without."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmplay.base.kv_cache import layer_cache, token_positions
from lmplay.exp.gpt2ish.model import GPT2
from tests.checks.families import Alibi, Rotary, Windowed


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


class AllLogitsWithCache(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        logits = self.fc(self.hidden(x, cache))
        return logits if cache is None else (logits, cache)


class LogitsAloneWithCache(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        return self.fc(self.hidden(x, cache))


class RotatesFromZero(Rotary):
    """Rotates what is new as if nothing was cached."""

    def place(self, x: Tensor, start: int) -> Tensor:
        return super().place(x, 0)


class BiasFromZero(Alibi):
    """Measures distances from the first key, and keeps the mask right."""

    def seen(self, q: Tensor, k: Tensor, start: int) -> Tensor:
        queries = torch.arange(q.size(2)).unsqueeze(1)
        bias = -0.1 * (queries - torch.arange(k.size(2))).abs()
        return bias.masked_fill(self.distance(q, k, start) < 0, -torch.inf)


class WindowOneTooWide(Windowed):
    """Keeps one key more in the cache than the window sees in training."""

    def seen(self, q: Tensor, k: Tensor, start: int) -> Tensor:
        distance = self.distance(q, k, start)
        return (distance >= 0) & (distance < self.window + (start > 0))


class SeesFirstKeyOnly(Rotary):
    """Asks for `is_causal` whatever the number of keys, which counts from the first of them."""

    def seen(self, q: Tensor, k: Tensor, start: int) -> Tensor:
        return torch.ones(q.size(2), k.size(2), dtype=torch.bool).tril()


class CountsItself(Cached):
    """Counts positions on its own, from the last empty cache on."""

    def positions(self, x: Tensor, cache: Any) -> Tensor:
        if cache is None:
            return token_positions(x)
        self.count = self.count + x.size(1) if cache else x.size(1)
        return torch.arange(self.count - x.size(1), self.count).clamp(max=self.max_len - 1).unsqueeze(0)
