"""Attention with dropout of its weights on a CPU, called by `MultiheadAttention`.

torch's fused kernel for CPUs takes no dropout: its SDPA then writes all (T, S) weights out, several times, and draws a
random number for each, those that causality hides included. Here a few queries at a time meet only the keys that they
may see, and the backward pass computes the weights again. What stays in memory is one byte a weight: whether it was
kept. An operator of its own, so that the compiler takes it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmplay.modules.dropout import acts_on_cpu, draw_kept, draws_shares, kept_share

# So many queries of all heads keep their weights in a CPU's last cache.
QUERIES = 64


def takes_dropped_attention(q: Tensor, k: Tensor, dropout: float) -> bool:
    """Whether `dropped_attention` computes this: dropout on a CPU, every query with a key of its own."""
    fits = q.shape == k.shape and q.dtype in (torch.float32, torch.float64)
    return fits and acts_on_cpu(q) and draws_shares(dropout) and not torch.is_autocast_enabled("cpu")


def dropped_attention(
    q: Tensor, k: Tensor, v: Tensor, *, dropout: float, causal: bool, mask: Tensor | None = None
) -> Tensor:
    """`F.scaled_dot_product_attention` with dropout; the random numbers differ, their distribution does not.

    q, k, v: (B, H, T, D/H). mask: boolean, broadcast to (B, H, T, T), true where attention is allowed.
    """
    out: Tensor = _attend(q, k, v, mask, dropout, causal)[0]
    return out


@torch.library.custom_op("lmplay::dropped_attention", mutates_args=(), device_types="cpu")
def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """-> the output (B, H, T, D/H), ln of each query's norm (B * H, T, 1), and which weights were kept, flat."""
    batch, heads, length, _ = q.shape
    queries, keys, values = _flat(q) * _scale(q), _flat(k), _flat(v)  # (B * H, T, D/H)
    # In memory (B, T, H, D/H), so that joining the heads again costs no copy.
    out = q.new_empty(batch, length, heads, q.size(-1)).transpose(1, 2)
    log_norm = q.new_empty(batch * heads, length, 1)
    kept = torch.empty(sum(rows.numel for rows in _blocks(queries, causal)), dtype=torch.uint8)
    draw_kept(kept, dropout)
    later = _later_keys(q) if causal else None
    first = 0
    for rows in _blocks(queries, causal):
        weights = torch.bmm(queries[:, rows.queries], keys[:, : rows.keys].transpose(1, 2))  # (B * H, t, s)
        _hide_(weights, rows, mask, later, heads=heads)
        # The bounds matter to a query that may attend to nothing: it then gets zeros.
        limits = torch.finfo(weights.dtype)
        largest = weights.amax(-1, keepdim=True).clamp_min_(limits.min)
        norm = weights.sub_(largest).exp_().sum(-1, keepdim=True).clamp_min_(limits.tiny)
        log_norm[:, rows.queries] = largest + norm.log()
        stop = first + weights.numel()
        weights.mul_(kept[first:stop].view_as(weights).to(weights.dtype))
        attended = torch.bmm(weights, values[:, : rows.keys]).div_(norm.mul_(kept_share(dropout)))
        out[:, :, rows.queries] = attended.view(batch, heads, *attended.shape[1:])
        first = stop
    return out, log_norm, kept


@_attend.register_fake
def _shapes(
    q: Tensor,
    k: Tensor,  # noqa: ARG001
    v: Tensor,  # noqa: ARG001
    mask: Tensor | None,  # noqa: ARG001
    dropout: float,  # noqa: ARG001
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, length, width = q.shape
    out = q.new_empty(batch, length, heads, width).transpose(1, 2)
    numel = sum(rows.numel for rows in _blocks(q.flatten(0, 1), causal))
    return out, q.new_empty(batch * heads, length, 1), q.new_empty(numel, dtype=torch.uint8)


@torch.library.custom_op("lmplay::dropped_attention_backward", mutates_args=(), device_types="cpu")
def _gradients(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    out: Tensor,
    log_norm: Tensor,
    kept: Tensor,
    dropout: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, each (B, H, T, D/H).

    With the weights P, the mask of dropout M over its kept share, and O = (P M) V:
    dV = (P M)^T dO, dP = M (dO V^T), dS = P (dP - sum(dO O)), the sum over D/H (Dao et al. 2022, appendix B.2).
    """
    shape = q.shape
    queries, keys, values = _flat(q) * _scale(q), _flat(k), _flat(v)
    grad_out = _flat(grad) / kept_share(dropout)
    dots = (_flat(grad) * _flat(out)).sum(-1, keepdim=True)  # (B * H, T, 1)
    grad_queries, grad_keys, grad_values = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
    later = _later_keys(q) if causal else None
    first = 0
    for rows in _blocks(queries, causal):
        q_here, k_here, grad_here = queries[:, rows.queries], keys[:, : rows.keys], grad_out[:, rows.queries]
        weights = torch.bmm(q_here, k_here.transpose(1, 2))  # (B * H, t, s)
        _hide_(weights, rows, mask, later, heads=q.size(1))
        weights.sub_(log_norm[:, rows.queries]).exp_()
        stop = first + weights.numel()
        survived = kept[first:stop].view_as(weights).to(weights.dtype)
        grad_weights = torch.bmm(grad_here, values[:, : rows.keys].transpose(1, 2))
        grad_weights.mul_(survived).sub_(dots[:, rows.queries]).mul_(weights)
        grad_values[:, : rows.keys].baddbmm_(weights.mul_(survived).transpose(1, 2), grad_here)
        grad_queries[:, rows.queries] = torch.bmm(grad_weights, k_here)
        grad_keys[:, : rows.keys].baddbmm_(grad_weights.transpose(1, 2), q_here)
        first = stop
    grad_queries *= _scale(q)
    return grad_queries.view(shape), grad_keys.view(shape), grad_values.view(shape)


@_gradients.register_fake
def _gradient_shapes(_: Tensor, q: Tensor, *__: Any) -> tuple[Tensor, Tensor, Tensor]:
    one, two, three = (torch.empty_like(q, memory_format=torch.contiguous_format) for _ in range(3))
    return one, two, three


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, mask, ctx.dropout, ctx.causal = inputs
    ctx.save_for_backward(q, k, v, mask, *output)


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return (*_gradients(grad, *ctx.saved_tensors, ctx.dropout, ctx.causal), None, None, None)


_attend.register_autograd(_backward, setup_context=_keep_for_backward)


@dataclass(frozen=True)
class _Rows:
    """The queries of one block, and how many keys, from the first on, they may see."""

    queries: slice
    keys: int
    numel: int


def _blocks(queries: Tensor, causal: bool) -> list[_Rows]:
    rows, length, _ = queries.shape
    blocks = []
    for start in range(0, length, QUERIES):
        stop = min(start + QUERIES, length)
        keys = stop if causal else length
        blocks.append(_Rows(slice(start, stop), keys, rows * (stop - start) * keys))
    return blocks


def _later_keys(q: Tensor) -> Tensor:
    """(QUERIES, QUERIES): -inf where a key comes after its query, else 0."""
    return q.new_full((QUERIES, QUERIES), float("-inf")).triu_(1)


def _hide_(weights: Tensor, rows: _Rows, mask: Tensor | None, later: Tensor | None, *, heads: int) -> None:
    """Put -inf where a query may not attend."""
    if later is not None:
        size = weights.size(1)
        # The only part where a key may come after its query. A sum, since torch fills by a mask element by element.
        weights[:, :, -size:].add_(later[:size, :size])
    if mask is not None:
        allowed = mask[..., rows.queries, : rows.keys]
        weights.view(-1, heads, *weights.shape[1:]).masked_fill_(~allowed, float("-inf"))


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[2:])  # (B, H, T, D/H) -> (B * H, T, D/H)


def _scale(q: Tensor) -> float:
    return float(q.size(-1) ** -0.5)
