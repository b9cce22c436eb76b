"""Sound models of other families than GPT-2's, which the checks must let pass; the broken ones change a method each."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmplay.base.base_model import LMBase
from lmplay.base.kv_cache import cache_length, layer_cache


class Small(LMBase):
    """Token embedding, blocks, RMSNorm and a head that is tied to the embedding; `mix` is what a block does."""

    kv_heads = 1

    def __init__(self, max_len: int = 32, num_blocks: int = 2, embed_dim: int = 32, num_heads: int = 2, **ignore: Any):
        super().__init__("small", max_len=max_len)
        self.num_heads = num_heads
        self.tok_embed = nn.Embedding(self.vocab_size, embed_dim)
        self.blocks = nn.ModuleList(self.block(embed_dim) for _ in range(num_blocks))
        self.ln = nn.RMSNorm(embed_dim)
        self.fc = nn.Linear(embed_dim, self.vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        self.tie()

    def tie(self) -> None:
        self.fc.weight = self.tok_embed.weight

    def block(self, dim: int) -> nn.Module:
        raise NotImplementedError

    def mix(self, block: Any, h: Tensor, cache: Any, start: int) -> Tensor:
        raise NotImplementedError

    def hidden(self, x: Tensor, cache: Any = None) -> Tensor:
        start = cache_length(cache)
        h = self.tok_embed(x)
        for index, block in enumerate(self.blocks):
            h = self.mix(block, h, layer_cache(cache, index), start)
        normed: Tensor = self.ln(h)
        return normed

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        h = self.hidden(x, cache)
        return self.fc(h) if cache is None else (self.fc(h[:, -1:]), cache)


class Rotary(Small):
    """LLaMA-like: grouped queries, rotary positions, SwiGLU."""

    def block(self, dim: int) -> nn.Module:
        size = dim // self.num_heads
        return nn.ModuleDict(
            {
                "ln1": nn.RMSNorm(dim),
                "q": nn.Linear(dim, dim, bias=False),
                "kv": nn.Linear(dim, 2 * self.kv_heads * size, bias=False),
                "proj": nn.Linear(dim, dim, bias=False),
                "ln2": nn.RMSNorm(dim),
                "gate": nn.Linear(dim, 2 * dim, bias=False),
                "up": nn.Linear(dim, 2 * dim, bias=False),
                "down": nn.Linear(2 * dim, dim, bias=False),
            }
        )

    def mix(self, block: Any, h: Tensor, cache: Any, start: int) -> Tensor:
        h = h + self.attend(block, block["ln1"](h), cache, start)
        return h + self.feed(block, block["ln2"](h))

    def feed(self, block: Any, h: Tensor) -> Tensor:
        out: Tensor = block["down"](F.silu(block["gate"](h)) * block["up"](h))
        return out

    def attend(self, block: Any, h: Tensor, cache: Any, start: int) -> Tensor:
        rows, length, dim = h.shape
        size = dim // self.num_heads
        q = block["q"](h).view(rows, length, self.num_heads, size).transpose(1, 2)  # (B, H, T, D/H)
        k, v = block["kv"](h).view(rows, length, 2 * self.kv_heads, size).transpose(1, 2).chunk(2, dim=1)
        q, k = self.place(q, start), self.place(k, start)
        if cache is not None:
            k, v = cache.update(k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.seen(q, k, start), enable_gqa=True)
        out: Tensor = block["proj"](y.transpose(1, 2).reshape(rows, length, dim))
        return out

    def place(self, x: Tensor, start: int) -> Tensor:
        """Rotates queries or keys `(B, H, T, D/H)` by their positions."""
        half = x.size(-1) // 2
        rates = 100.0 ** (-torch.arange(half, device=x.device) / half)
        angles = (torch.arange(x.size(2), device=x.device) + start).unsqueeze(1) * rates  # (T, D/2H)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        one, other = x.chunk(2, dim=-1)
        return torch.cat((one * cos - other * sin, one * sin + other * cos), dim=-1)

    def seen(self, q: Tensor, k: Tensor, start: int) -> Tensor:
        """The attention mask `(T, S)`."""
        return self.distance(q, k, start) >= 0

    def distance(self, q: Tensor, k: Tensor, start: int) -> Tensor:
        """How far each key lies before each query, `(T, S)`; negative for later ones."""
        queries = torch.arange(q.size(2), device=q.device) + start
        return queries.unsqueeze(1) - torch.arange(k.size(2), device=q.device)


class Windowed(Rotary):
    """Attends to the last few tokens only."""

    window = 6

    def seen(self, q: Tensor, k: Tensor, start: int) -> Tensor:
        distance = self.distance(q, k, start)
        return (distance >= 0) & (distance < self.window)


class Alibi(Rotary):
    """No positions but a bias that falls with the distance."""

    def place(self, x: Tensor, start: int) -> Tensor:
        return x

    def seen(self, q: Tensor, k: Tensor, start: int) -> Tensor:
        distance = self.distance(q, k, start).to(q.dtype)
        slopes = 2.0 ** -(torch.arange(1, q.size(1) + 1, device=q.device, dtype=q.dtype) * 8 / q.size(1))
        return (-slopes.view(-1, 1, 1) * distance).masked_fill(distance < 0, -math.inf).unsqueeze(0)


class Parallel(Rotary):
    """Attention and feed-forward side by side, as in GPT-J."""

    def mix(self, block: Any, h: Tensor, cache: Any, start: int) -> Tensor:
        return h + self.attend(block, block["ln1"](h), cache, start) + self.feed(block, block["ln2"](h))


class TopTwoExperts(Rotary):
    """A token goes to the best two of four experts, weighted by the router."""

    def block(self, dim: int) -> nn.Module:
        block = super().block(dim)
        block["router"] = nn.Linear(dim, 4, bias=False)
        block["experts"] = nn.ModuleList(nn.Linear(dim, dim) for _ in range(4))
        return block

    def feed(self, block: Any, h: Tensor) -> Tensor:
        weights = self.routed(block["router"](h).softmax(-1))  # (B, T, 4)
        return sum((weights[..., i : i + 1] * e(h) for i, e in enumerate(block["experts"])), super().feed(block, h))

    def routed(self, shares: Tensor) -> Tensor:
        best, indices = shares.topk(2, dim=-1)
        return torch.zeros_like(shares).scatter(-1, indices, best / best.sum(-1, keepdim=True))


class DropsLayers(Rotary):
    """Leaves a block out now and then, in training mode."""

    def mix(self, block: Any, h: Tensor, cache: Any, start: int) -> Tensor:
        if self.training and torch.rand(()) < 0.2:
            return h
        return super().mix(block, h, cache, start)


class Scan(Small):
    """A state-space model: a state that decays as each token says, computed in chunks. It has no cache."""

    chunk = 8

    def block(self, dim: int) -> nn.Module:
        names = ("decay", "write", "read", "proj")
        return nn.ModuleDict({"ln": nn.RMSNorm(dim), **{name: nn.Linear(dim, dim, bias=False) for name in names}})

    def mix(self, block: Any, h: Tensor, cache: Any, start: int) -> Tensor:
        x = block["ln"](h)
        log_decay, written = F.logsigmoid(block["decay"](x) + 2.0), block["write"](x)  # (B, T, D)
        state = torch.zeros_like(h[:, 0])
        states = []
        for first in range(0, h.size(1), self.chunk):
            inside = log_decay[:, first : first + self.chunk].cumsum(1)
            new = written[:, first : first + self.chunk]
            ratio = (inside.unsqueeze(2) - inside.unsqueeze(1)).permute(0, 3, 1, 2).exp().tril()  # (B, D, t, s)
            mixed = torch.einsum("bdts,bsd->btd", ratio, new) + inside.exp() * state.unsqueeze(1)
            states.append(mixed)
            state = mixed[:, -1]
        return h + block["proj"](torch.cat(states, 1) * F.silu(block["read"](x)))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.fc(self.hidden(x))
        return logits


SOUND = (Rotary, Windowed, Alibi, Parallel, TopTwoExperts, DropsLayers, Scan)
