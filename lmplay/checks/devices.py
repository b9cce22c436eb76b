"""Does forward() make its tensors where its input is? Asked on a CPU, before the first pass on a GPU raises.

The model's parameters and buffers are moved to the meta device, as `.to("cuda")` would move them. What then meets
them from the CPU would have met them on a GPU as well. Called by the check of cost.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmplay.checks.estimates.skeleton import meta_tokens
from lmplay.checks.subject import Subject, duplicate, mode

MAY_MIX = ("copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
"""Copies between devices, and indices, which torch takes from the CPU on any device."""


def stray_tensor(subject: Subject) -> str | None:
    """Which operation takes a tensor of the CPU beside one of the model's device, and where; None when none does.

    Also None for a model that cannot run without storage.
    """
    model = duplicate(subject.model).to("meta")
    tokens = meta_tokens(model, 2, min(model.max_len, 32))
    try:
        one_device = _OneDevice()  # type: ignore[no-untyped-call]
        with torch.no_grad(), mode(model, training=False), one_device:
            model(tokens)
    except _StrayTensor as error:
        return str(error)
    except Exception:  # noqa: BLE001 (no kernel without storage, a value that is asked for: nothing can be told)
        return None
    return None


class _StrayTensor(Exception):
    """Not a RuntimeError, so that a model that catches those does not catch this."""


class _OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises at the first operation on tensors of two devices. Numbers in a tensor without dimensions may mix."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        run: Callable[..., Any] = func
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim() > 0]
        name = func.overloadpacket.__name__
        if name not in MAY_MIX and len({tensor.device.type for tensor in tensors}) > 1:
            stray = next(tensor for tensor in tensors if tensor.device.type == "cpu")
            raise _StrayTensor(f"a tensor {tuple(stray.shape)} of the CPU meets the model's in {name} ({_place()})")
        return run(*args, **(kwargs or {}))


def _place() -> str:
    """The innermost line that is neither torch's nor this file's."""
    for frame in reversed(traceback.extract_stack()):
        if "site-packages" not in frame.filename and frame.filename != __file__:
            return f"{Path(frame.filename).name}, line {frame.lineno}"
    return "an unknown place"
