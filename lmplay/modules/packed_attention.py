"""Attention within the documents of packed rows by FlexAttention, which skips blocks of scores between documents.

The fast path of CUDA beside SDPA with a mask, which `attention.py` takes everywhere else: on a CPU, with dropout on the
weights (FlexAttention has none), for rows of a few blocks, and where the kernel can't be compiled.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

_BLOCK = 128
# Below these FlexAttention's kernel has no room to win, or refuses.
_LEAST_LENGTH = 2 * _BLOCK
_LEAST_HEAD_DIM = 16


class _Kernel:
    """Whether the compiled kernel works on this machine; found out at its first use."""

    works = True


def document_blocks(documents: torch.Tensor, *, causal: bool) -> BlockMask:
    """Which blocks of a row's scores hold anything, from the document index of each position `(B, T)`."""

    def allowed(batch: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        same = documents[batch, query] == documents[batch, key]
        return same & (query >= key) if causal else same

    rows, length = documents.shape
    return create_block_mask(allowed, rows, None, length, length, device=documents.device, BLOCK_SIZE=_BLOCK)


def has_packed_kernel(documents: torch.Tensor) -> bool:
    """Whether rows like these are worth their blocks on this device."""
    return documents.is_cuda and _Kernel.works and documents.size(1) >= _LEAST_LENGTH


def takes_packed_attention(q: torch.Tensor, blocks: BlockMask | None, dropout: float) -> bool:
    """Whether `packed_attention` may compute these queries `(B, H, T, D)`."""
    return blocks is not None and not dropout and _Kernel.works and q.size(-1) >= _LEAST_HEAD_DIM


def packed_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, blocks: BlockMask, mask: torch.Tensor
) -> torch.Tensor:
    """`(B, H, T, D)` of each. `mask` says the same as `blocks`, for where the kernel turns out not to work."""
    if torch.compiler.is_compiling():  # part of a compiled block already
        return _flex(q, k, v, blocks)
    try:
        return _compiled()(q, k, v, blocks) if q.is_cuda else _flex(q, k, v, blocks)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ImportError) as error:  # no compiler, no Triton, a shape or a card that it does not know
        _Kernel.works = False
        warnings.warn(f"packed rows are attended to with a plain mask: FlexAttention failed with {error}", stacklevel=2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, blocks: BlockMask) -> torch.Tensor:
    out = flex_attention(q, k, v, block_mask=blocks)
    assert isinstance(out, torch.Tensor)
    return out


@functools.cache
def _compiled() -> Callable[..., torch.Tensor]:
    """Without its kernel FlexAttention is slower than a mask. Made at the first use: compiling takes its time."""
    return torch.compile(_flex)
