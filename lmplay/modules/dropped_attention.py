"""Attention with dropout of its weights on a CPU, called by `MultiheadAttention`.

torch's fused kernel for CPUs takes no dropout: its SDPA then writes all (T, S) weights out, several times, and draws a
random number for each, those that causality hides included. Here a few queries at a time meet only the keys that they
may see, and the backward pass computes the weights again. What stays in memory is one byte a weight: whether it was
kept. An operator of its own, so that the compiler takes it as it is.
"""

from __future__ import annotations

import math
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
    limits = torch.finfo(q.dtype)
    for rows in _blocks(queries, causal):
        weights = torch.bmm(queries[:, rows.queries], keys[:, : rows.keys].mT)  # (B * H, t, s)
        veils = _veils(weights, rows, mask, causal=causal, heads=heads)
        _hide_(veils)
        # The bounds matter to a query that may attend to nothing: it then gets zeros.
        largest = weights.amax(-1, keepdim=True).clamp_min_(limits.min)
        norm = _exp_(weights.sub_(largest), veils).sum(-1, keepdim=True).clamp_min_(limits.tiny)
        log_norm[:, rows.queries] = largest + norm.log()
        weights.mul_(kept[rows.weights].view_as(weights).to(weights.dtype))
        attended = torch.bmm(weights, values[:, : rows.keys]).div_(norm.mul_(kept_share(dropout)))
        out[:, :, rows.queries] = attended.view(batch, heads, *attended.shape[1:])
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
    queries, keys, grad_out = _flat(q) * _scale(q), _flat(k), _flat(grad) / kept_share(dropout)
    # So short a sum, over D/H only, is faster where its second factor has long rows.
    key_columns, value_columns = _flat(k.mT), _flat(v.mT)  # (B * H, D/H, T)
    dots = _flat((grad * out).sum(-1, keepdim=True))  # (B * H, T, 1)
    grad_queries, grad_keys, grad_values = (torch.empty_like(queries) for _ in range(3))
    # The last queries come first: causal or not, they see every key, and so write what the others add to.
    for number, rows in enumerate(reversed(_blocks(queries, causal))):
        q_here, grad_here = queries[:, rows.queries], grad_out[:, rows.queries]
        weights = torch.bmm(q_here, key_columns[:, :, : rows.keys])  # (B * H, t, s)
        veils = _veils(weights, rows, mask, causal=causal, heads=q.size(1))
        _hide_(veils)
        _exp_(weights.sub_(log_norm[:, rows.queries]), veils)
        dropped = kept[rows.weights].view_as(weights).to(weights.dtype).mul_(weights)  # P M
        grad_weights = torch.bmm(grad_here, value_columns[:, :, : rows.keys])
        grad_weights.mul_(dropped).addcmul_(weights, dots[:, rows.queries], value=-1.0)
        grad_queries[:, rows.queries] = torch.bmm(grad_weights, keys[:, : rows.keys])
        beta = min(number, 1)
        grad_values[:, : rows.keys].baddbmm_(dropped.mT, grad_here, beta=beta)
        grad_keys[:, : rows.keys].baddbmm_(grad_weights.mT, q_here, beta=beta)
    grad_queries *= _scale(q)
    return grad_queries.view(q.shape), grad_keys.view(q.shape), grad_values.view(q.shape)


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
    """The queries of one block, how many keys, from the first on, they may see, and their place among all weights."""

    queries: slice
    keys: int
    weights: slice

    @property
    def numel(self) -> int:
        return int(self.weights.stop - self.weights.start)


def _blocks(queries: Tensor, causal: bool) -> list[_Rows]:
    rows, length, _ = queries.shape
    blocks: list[_Rows] = []
    first = 0
    for start in range(0, length, QUERIES):
        stop = min(start + QUERIES, length)
        keys = stop if causal else length
        last = first + rows * (stop - start) * keys
        blocks.append(_Rows(slice(start, stop), keys, slice(first, last)))
        first = last
    return blocks


Veil = tuple[Tensor, Tensor]
"""A part of the weights in which some are hidden, and there, ones where a query may attend, else zeros."""


def _veils(weights: Tensor, rows: _Rows, mask: Tensor | None, *, causal: bool, heads: int) -> list[Veil]:
    veils = []
    if causal:
        size = weights.size(1)
        # The only part where a key may come after its query.
        veils.append((weights[:, :, -size:], weights.new_ones(size, size).tril_()))
    if mask is not None:
        by_head = weights.view(-1, heads, *weights.shape[1:])
        veils.append((by_head, mask[..., rows.queries, : rows.keys].to(weights.dtype)))
    return veils


def _hide_(veils: list[Veil]) -> None:
    """Put -inf where a query may not attend. A sum, since torch fills by a mask element by element."""
    for part, visible in veils:
        part.add_(visible.log())


def _exp_(weights: Tensor, veils: list[Veil]) -> Tensor:
    """`weights.exp_()`, and zeros where a query may not attend.

    exp is ten times slower where its result is no normal number, which infinities would bring about by the thousand.
    """
    lowest = math.log(torch.finfo(weights.dtype).tiny) + 0.1
    for part, _ in veils:
        part.clamp_min_(lowest)
    weights.exp_()
    for part, visible in veils:
        part.mul_(visible)
    return weights


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[2:])  # (B, H, T, D/H) -> (B * H, T, D/H)


def _scale(q: Tensor) -> float:
    return float(q.size(-1) ** -0.5)
