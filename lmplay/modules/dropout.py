"""Dropout whose random numbers cost little on a CPU.

torch draws a whole random number of its Mersenne twister for every element there, 7 ns each. Here 16 bits decide, four
elements share one draw, and the bits come from numpy's SFC64, which is twice as fast; torch's generator seeds it
for each mask, so that its state is all that a continuation needs. The chance of an element is so rounded to a multiple
of 1/65536, and what is kept is scaled by the chance that it really had, so that the mean is exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 1 << 16
# Elements drawn at once: their bits stay in the cache.
_AT_ONCE = 1 << 18


_meta_is_cpu: ContextVar[bool] = ContextVar("meta_is_cpu", default=False)


@contextlib.contextmanager
def meta_as_cpu() -> Iterator[None]:
    """Inside, tensors without storage are taken for a CPU's: for estimates of what training keeps in memory."""
    token = _meta_is_cpu.set(True)
    try:
        yield
    finally:
        _meta_is_cpu.reset(token)


def acts_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" or (x.is_meta and _meta_is_cpu.get())


def kept_share(dropout: float) -> float:
    """The chance that `draw_kept` gives an element to be kept."""
    return 1.0 - round(dropout * LEVELS) / LEVELS


def draw_kept(kept: Tensor, dropout: float) -> None:
    """Fill `kept`, contiguous bytes on a CPU, with ones and, with the chance of `dropout`, zeros."""
    if kept.is_meta:
        return
    threshold = np.int16(round(dropout * LEVELS) - LEVELS // 2)
    source = np.random.SFC64(torch.randint(2**63 - 1, (1,)).numpy())
    flat = kept.view(torch.bool).flatten().numpy()
    for first in range(0, flat.size, _AT_ONCE):
        part = flat[first : first + _AT_ONCE]
        bits = source.random_raw(part.size // 4 + 1).view(np.int16)
        np.greater_equal(bits[: part.size], threshold, out=part)


class Dropout(nn.Dropout):
    """`nn.Dropout`, faster where a CPU runs it as it is written."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        fits = acts_on_cpu(x) and x.dtype in (torch.float32, torch.float64)
        if not self.inplace and fits and draws_shares(self.p) and not torch.compiler.is_compiling():
            dropped: Tensor = _Drop.apply(x, self.p)  # type: ignore[no-untyped-call]
            return dropped
        return super().forward(x)


def draws_shares(dropout: float) -> bool:
    """Whether 16 bits tell `dropout` from never and always."""
    return 0 < round(dropout * LEVELS) < LEVELS


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: float) -> Tensor:
        kept = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
        draw_kept(kept, dropout)
        ctx.scale = 1.0 / kept_share(dropout)
        ctx.save_for_backward(kept)
        return kept.to(x.dtype).mul_(x).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return kept.to(grad.dtype).mul_(grad).mul_(ctx.scale), None
