"""Tensors that may be spread over processes (`--shard`), and may as well be plain ones.

Told apart without the module of spread tensors, which takes a worker of its own a second to import.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """The part that this process holds; outside of autograd, writing into it writes into the tensor."""
    to_local: Callable[[], Tensor] | None = getattr(tensor.detach(), "to_local", None)
    return tensor if to_local is None else to_local()


def whole(tensor: Tensor) -> Tensor:
    """All of it; of a spread tensor, every process must ask at once."""
    full_tensor: Callable[[], Tensor] | None = getattr(tensor.detach(), "full_tensor", None)
    return tensor if full_tensor is None else full_tensor()
