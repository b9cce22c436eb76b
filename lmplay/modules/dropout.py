"""Dropout whose random numbers cost little on a CPU.

torch draws a whole random number for every element there, 7 ns each; 16 bits decide as well, and four elements share
one draw. The chance of an element is so rounded to a multiple of 1/65536, and what is kept is scaled by the chance
that it really had, so that the mean is exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

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
    threshold = round(dropout * LEVELS) - LEVELS // 2  # as a signed number of 16 bits
    bits = torch.empty(min(kept.numel(), _AT_ONCE) // 4 + 1, dtype=torch.int64, device=kept.device)
    for part in torch.split(kept.view(torch.uint8).flatten(), _AT_ONCE):
        bits.random_(-(2**63), None)
        # In place, then copied: torch compares into another type one element at a time.
        part.copy_(bits.view(torch.int16)[: part.numel()].ge_(threshold))


class Dropout(nn.Dropout):
    """`nn.Dropout`, faster where a CPU runs it as it is written."""

    def forward(self, x: Tensor) -> Tensor:
        fits = acts_on_cpu(x) and x.dtype in (torch.float32, torch.float64)
        if self.training and not self.inplace and fits and draws_shares(self.p) and not torch.compiler.is_compiling():
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
