"""The transformer block of GPT-2: attention and feed-forward, each behind a layer norm and around a residual path."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lmplay.modules.attention import MultiheadAttention
from lmplay.modules.dropout import Dropout


class FeedForward(nn.Module):
    """D -> `ff_dim` -> D with a GELU between: the exact one, or with `gelu="tanh"` the approximation of GPT-2."""

    def __init__(
        self,
        embed_dim: int,
        ff_dim: int | None = None,
        *,
        ff_dropout: float = 0.0,
        bias: bool = True,
        gelu: str = "none",
    ) -> None:
        super().__init__()
        if gelu not in ("none", "tanh"):
            raise ValueError(f'gelu must be "none" (exact) or "tanh" (approximate), not {gelu!r}')
        self.gelu = gelu
        ff_dim = ff_dim if ff_dim is not None else 4 * embed_dim
        self.up = nn.Linear(embed_dim, ff_dim, bias=bias)
        self.down = nn.Linear(ff_dim, embed_dim, bias=bias)
        self.dropout = Dropout(ff_dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.dropout(self.down(F.gelu(self.up(x), approximate=self.gelu)))
        return out


class Block(nn.Module):
    """Pre-norm: `x + attn(ln1(x))`, then `x + ff(ln2(x))`."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        ff_dim: int | None = None,
        attn_dropout: float = 0.0,
        ff_dropout: float = 0.0,
        bias: bool = True,
        causal: bool = True,
        gelu: str = "none",
    ) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(embed_dim)
        self.attn = MultiheadAttention(embed_dim, num_heads, attn_dropout=attn_dropout, bias=bias, causal=causal)
        self.ln2 = nn.LayerNorm(embed_dim)
        self.ff = FeedForward(embed_dim, ff_dim, ff_dropout=ff_dropout, bias=bias, gelu=gelu)

    def forward(self, x: torch.Tensor, cache: Any = None, mask: torch.Tensor | None = None) -> torch.Tensor:
        """`(B, T, D)` -> `(B, T, D)`; `cache` and `mask` are `MultiheadAttention`'s."""
        x = x + self.attn(self.ln1(x), cache=cache, mask=mask)
        y: torch.Tensor = x + self.ff(self.ln2(x))
        return y

    def residual_projections(self) -> list[nn.Linear]:
        """The layers that write into the residual path."""
        return [self.attn.proj, self.ff.down]
