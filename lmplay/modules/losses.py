"""Cross entropy of a language model, as a sum over target tokens: plain, and without ever holding all logits.

Sums, not means: the trainer divides by the number of targets of the whole effective batch, so that the size of the
pieces it computes never changes the result. `IGNORE` marks a position without a target.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over all targets of -ln p(target), in nats.

    logits: (..., V) in any floating type, computed in float32 or wider. targets: (...) integers, IGNORE for none.
    """
    wide = logits.flatten(0, -2)
    wide = wide if wide.dtype == torch.float64 else wide.float()
    return F.cross_entropy(wide, targets.flatten(), ignore_index=IGNORE, reduction="sum")


def linear_cross_entropy_sum(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, bias: Tensor | None = None, chunk_size: int | None = None
) -> Tensor:
    """`cross_entropy_sum(F.linear(hidden, weight, bias), targets)`, a chunk of positions at a time.

    hidden: (..., D). weight: (V, D). targets: (...). bias: (V,). Equal in value and gradient to the plain form; peak
    memory is `chunk_size` rows of logits instead of all of them.
    """
    flat = hidden.flatten(0, -2)  # (..., D) -> (N, D)
    chunk = chunk_size or default_chunk_size(flat.shape[-1])
    total: Tensor = _ChunkedLinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        flat, weight, bias, targets.flatten(), chunk
    )
    return total


@torch.no_grad()
def linear_cross_entropy_and_hits(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, bias: Tensor | None = None, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """For evaluation: (sum of -ln p(target) in nats, number of targets that have the largest logit), chunk by chunk.

    Shapes as in `linear_cross_entropy_sum`; no gradients.
    """
    flat, wanted = hidden.flatten(0, -2), targets.flatten()  # (N, D), (N,)
    chunk = chunk_size or default_chunk_size(flat.shape[-1])
    loss = torch.zeros((), dtype=torch.promote_types(flat.dtype, torch.float32), device=flat.device)
    hits = torch.zeros((), dtype=torch.int64, device=flat.device)
    for h, target in zip(torch.split(flat, chunk), torch.split(wanted, chunk), strict=True):
        logits = F.linear(h, weight, bias)  # (n, V)
        logits = logits.to(loss.dtype)
        keep = target != IGNORE
        picked = logits.gather(1, target.clamp_min(0)[:, None])[:, 0]  # (n,)
        largest, guess = logits.max(dim=-1)
        # logsumexp in the buffer of the logits: a fresh one of this size costs more than the arithmetic.
        log_norm = largest + logits.sub_(largest[:, None]).exp_().sum(dim=-1).log()
        loss += ((log_norm - picked) * keep).sum()
        hits += ((guess == target) & keep).sum()
    return loss, hits


def default_chunk_size(width: int) -> int:
    """Positions a chunk: where a narrow head is bound by memory traffic, a small chunk stays in the cache."""
    return 128 if width < 512 else 1024


# So many rows of logits stay in the cache of a CPU's core (1.6 MB of them) while five simple passes go over them.
_ROWS_IN_CACHE = 8


def _losses_and_gradient_(logits: Tensor, targets: Tensor, keep: Tensor, *, gradient: bool) -> Tensor:
    """The sum of -ln p(target) over the rows that `keep` (n,) marks; with `gradient`, `logits` (n, V) become
    `(softmax(logits) - onehot(targets)) * keep`, else they are lost.
    """
    total = torch.zeros((), dtype=logits.dtype, device=logits.device)
    at_once = _ROWS_IN_CACHE if logits.device.type == "cpu" else max(1, len(logits))
    for rows, target, kept in zip(*(torch.split(part, at_once) for part in (logits, targets, keep)), strict=True):
        shift = rows.amax(dim=-1)  # (r,)
        picked = rows.gather(1, target[:, None])[:, 0] - shift
        norm = rows.sub_(shift[:, None]).exp_().sum(dim=-1)  # in place: a fresh buffer costs more than the arithmetic
        total += torch.where(kept, norm.log() - picked, 0).sum()
        if gradient:
            rows.mul_((kept / norm)[:, None])
            rows.scatter_add_(1, target[:, None], -kept.to(rows.dtype)[:, None])
    return total


class _ChunkedLinearCrossEntropy(torch.autograd.Function):
    """Computes the gradient in the forward pass, while a chunk's logits are at hand, and keeps only (N, D) and (V, D).

    d loss / d logits = softmax(logits) - onehot(target), written over the logits themselves.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk_size: int
    ) -> Tensor:
        # Under autocast the matrix products run in the reduced type, as F.linear would; sums stay in float32 or wider.
        device = hidden.device.type
        reduced = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        wide = torch.promote_types(hidden.dtype, torch.float32)
        keeps_graph = any(ctx.needs_input_grad)
        kept = targets != IGNORE
        hidden_part, weight_part = hidden.to(reduced), weight.to(reduced)
        grad_hidden = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        # Written by the first chunk: clearing it beforehand would cost another pass over (V, D).
        unwritten = torch.empty_like if len(hidden) else torch.zeros_like
        grad_weight = unwritten(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and ctx.needs_input_grad[2] else None
        total = torch.zeros((), dtype=wide, device=hidden.device)

        # One buffer for all chunks: memory that is asked for anew has to be cleared by the system first.
        buffer = hidden_part.new_empty(min(chunk_size, len(hidden)), len(weight))
        with torch.autocast(device, enabled=False):
            for start in range(0, hidden.shape[0], chunk_size):
                rows = slice(start, start + chunk_size)
                h, target, keep = hidden_part[rows], targets[rows].clamp_min(0), kept[rows]
                logits = torch.mm(h, weight_part.t(), out=buffer[: len(h)])  # (n, D) x (D, V) -> (n, V)
                if bias is not None:
                    logits += bias.to(reduced)
                logits = logits.to(wide)
                total += _losses_and_gradient_(logits, target, keep, gradient=keeps_graph)
                if not keeps_graph:
                    continue
                if grad_bias is not None:
                    grad_bias += logits.sum(0)
                reduced_grad = logits.to(reduced)
                if grad_hidden is not None:
                    grad_hidden[rows] = torch.mm(reduced_grad, weight_part)  # (n, V) x (V, D) -> (n, D)
                if grad_weight is not None:
                    if reduced == wide:
                        grad_weight.addmm_(reduced_grad.t(), h, beta=int(start > 0))  # (V, n) x (n, D) -> (V, D)
                    elif start:
                        grad_weight += torch.mm(reduced_grad.t(), h)
                    else:
                        grad_weight.copy_(torch.mm(reduced_grad.t(), h))
        ctx.grads = (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
        )
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        if ctx.grads is None:
            raise RuntimeError("the chunked loss scales its gradients in place: it can be differentiated only once")
        grad_hidden, grad_weight, grad_bias = ctx.grads
        ctx.grads = None
        return (
            None if grad_hidden is None else grad_hidden.mul_(grad_output),
            None if grad_weight is None else grad_weight.mul_(grad_output),
            None if grad_bias is None else grad_bias.mul_(grad_output),
            None,
            None,
        )
