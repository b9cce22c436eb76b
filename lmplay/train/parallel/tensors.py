"""Tensors that may be spread over processes (`--shard`), and may as well be plain ones."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """The part that this process holds; writing into it writes into the tensor."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of it; of a spread tensor, every process must ask at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
