"""Multi-head self-attention, causal unless told otherwise, with an optional key-value cache."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lmplay.modules.dropout import Dropout
from lmplay.modules.dropped_attention import dropped_attention, takes_dropped_attention
from lmplay.modules.masks import causal_mask
from lmplay.modules.packed_attention import packed_attention, takes_packed_attention


class MultiheadAttention(nn.Module):
    """GPT-2's attention: one projection to queries, keys and values, SDPA, one projection back.

    `attn_dropout` applies to the attention weights and to the output.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, *, attn_dropout: float = 0.0, bias: bool = True, causal: bool = True
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim ({embed_dim}) must be a multiple of num_heads ({num_heads})")
        self.num_heads = num_heads
        self.attn_dropout = attn_dropout
        self.causal = causal
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=bias)
        self.proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.dropout = Dropout(attn_dropout)

    def forward(self, x: torch.Tensor, cache: Any = None, mask: torch.Tensor | None = None) -> torch.Tensor:
        """`(B, T, D)` -> `(B, T, D)`.

        `cache` is this layer's: an object with `update(k, v) -> (all k, all v)`, or a list, `[]` at first, that will
        hold the two. `mask` is boolean, true where attention is allowed, and takes the place of the layer's causality.
        """
        batch, length, dim = x.shape
        # (B, T, 3D) -> (B, T, 3, H, D/H) -> (3, B, H, T, D/H)
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if cache is not None:
            k, v = update_cache(cache, k, v)
        total = k.size(2)
        if mask is None and self.causal and 1 < length < total:
            mask = causal_mask(length, total, device=x.device)
        dropout = self.attn_dropout if self.training else 0.0
        causal = mask is None and self.causal and length > 1
        blocks: Any = getattr(mask, "blocks", None)  # of packed rows, on CUDA
        if mask is not None and takes_packed_attention(q, blocks, dropout):
            y = packed_attention(q, k, v, blocks=blocks, mask=mask)
        elif takes_dropped_attention(q, k, dropout):
            y = dropped_attention(q, k, v, dropout=dropout, causal=causal, mask=mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        y = y.transpose(1, 2).reshape(batch, length, dim)  # (B, H, T, D/H) -> (B, T, D)
        out: torch.Tensor = self.dropout(self.proj(y))
        return out


def update_cache(cache: Any, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Append keys and values `(B, H, T, D/H)` to one layer's cache; returns all of them."""
    if hasattr(cache, "update"):
        all_keys, all_values = cache.update(k, v)
        return all_keys, all_values
    if not isinstance(cache, list) or len(cache) not in (0, 2):
        raise ValueError("a layer takes its own entry of the cache: block(x, cache=layer_cache(cache, index))")
    if cache:
        k, v = torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
    cache[:] = [k, v]
    return k, v
