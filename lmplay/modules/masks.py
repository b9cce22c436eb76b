"""Attention masks: boolean, true where a query (row) may attend to a key (column), as SDPA reads them."""

from __future__ import annotations

import torch

from lmplay.modules.packed_attention import document_blocks, has_packed_kernel


def causal_mask(queries: int, keys: int, *, device: torch.device | None = None) -> torch.Tensor:
    """`(T, S)`: the queries are the last T of S positions, and each sees itself and what came before."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(diagonal=keys - queries)


def document_mask(documents: torch.Tensor, *, causal: bool = True) -> torch.Tensor:
    """`(B, 1, T, T)` from the document index of each position `(B, T)`: no token sees another document.

    On CUDA the mask carries its `blocks` besides, for the kernel in `packed_attention.py`.
    """
    same = documents.unsqueeze(2) == documents.unsqueeze(1)  # (B, T, T)
    if causal:
        same = same.tril()
    mask = same.unsqueeze(1)
    if has_packed_kernel(documents):
        mask.blocks = document_blocks(documents, causal=causal)  # type: ignore[attr-defined]
    return mask


def left_padding_mask(padding: torch.Tensor, queries: int, keys: int, *, causal: bool = True) -> torch.Tensor:
    """`(B, 1, T, S)`: as `causal_mask`, and the first `padding` `(B,)` keys of each row are hidden.

    A padding query sees itself, so that no row of the softmax is empty; what comes of it reaches no real token.
    """
    key = torch.arange(keys, device=padding.device)
    query = key[keys - queries :]
    allowed = key.view(1, 1, keys) >= padding.view(-1, 1, 1)  # (B, 1, S)
    if causal:
        allowed = allowed & (key <= query.unsqueeze(1))  # (B, T, S)
    allowed = allowed | (key == query.unsqueeze(1))
    return allowed.unsqueeze(1)


def step_mask(position: torch.Tensor, keys: int, padding: torch.Tensor | None = None) -> torch.Tensor:
    """`(1 or B, 1, 1, S)`: one query at `position` `(1,)` sees the keys up to its own, the row's first `padding`
    hidden.
    """
    key = torch.arange(keys, device=position.device)
    allowed = (key <= position).view(1, 1, 1, keys)
    return allowed if padding is None else allowed & (key >= padding.view(-1, 1, 1, 1))
