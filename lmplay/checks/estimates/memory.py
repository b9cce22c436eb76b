"""Memory that training takes: weights, gradients, optimizer state, and what the forward pass keeps for the backward.

Activations are not guessed: a model without storage runs once, and what autograd saves is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from lmplay.base.base_model import LMBase, hidden_of
from lmplay.checks.estimates.skeleton import meta_tokens
from lmplay.modules.dropout import meta_as_cpu

DEFAULT_MINI_BATCH = 4
ADAM_STATES = 2  # running means of the gradient and of its square


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes, for a mini-batch of `mini_batch_size` rows of `sequence_length` tokens in float32 with AdamW."""

    weights: int
    gradients: int
    optimizer: int
    activations: int | None
    """None for a model that cannot run without storage."""
    mini_batch_size: int
    sequence_length: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + (self.activations or 0)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


def estimate_memory(
    model: LMBase,
    *,
    mini_batch_size: int = DEFAULT_MINI_BATCH,
    sequence_length: int | None = None,
    device_type: str = "cpu",
) -> Memory:
    """What training `model` takes on a device of that type."""
    length = sequence_length or model.max_len
    weights = sum(parameter.nbytes for parameter in model.parameters())
    gradients = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    try:
        activations: int | None = activation_bytes(model, mini_batch_size, length, device_type=device_type)
    except (NotImplementedError, RuntimeError):  # an operation that needs values, or that has no meta version
        activations = None
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=ADAM_STATES * gradients,
        activations=activations,
        mini_batch_size=mini_batch_size,
        sequence_length=length,
    )


def largest_mini_batch(model: LMBase, available: int, *, device_type: str = "cpu") -> int | None:
    """How many rows of `max_len` tokens fit into `available` bytes beside weights, gradients and optimizer state.

    Activations grow in proportion to the rows, except that a single row saves some copies. None when not known.
    """
    one, two, three = (estimate_memory(model, mini_batch_size=rows, device_type=device_type) for rows in (1, 2, 3))
    if one.activations is None:
        return None
    if available < two.total:
        return int(available >= one.total)
    return (available - two.total) // max(1, three.total - two.total) + 2


def activation_bytes(model: LMBase, rows: int, length: int, *, device_type: str = "cpu") -> int:
    """Bytes that autograd keeps from the forward pass and the loss of one mini-batch; shared storage counts once.

    With `hidden`, the loss keeps no logits but the gradient of its input and of the output projection.
    """
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, int] = {}
    holds: list[torch.Tensor] = []  # keeps every storage alive, so that no two of them get the same address

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            holds.append(tensor)
        return tensor

    was_training = model.training
    model.train()
    tokens = meta_tokens(model, rows, length)
    extra = 0
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
            if tokens.is_meta:
                stack.enter_context(_FusedAttention(device_type))
                if device_type == "cpu":
                    stack.enter_context(meta_as_cpu())
            hidden = hidden_of(model)
            if hidden is not None:
                states = hidden(tokens)
                extra = states.nbytes + model.output_projection.weight.nbytes
            else:
                logits = model(tokens)  # (B, T, V)
                F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())
    finally:
        model.train(was_training)
    return sum(kept.values()) + extra


class _FusedAttention(TorchFunctionMode):
    """Attention keeps what the fused kernels keep: inputs, output and one number a query.

    Without storage torch always takes the plain kernel, which keeps the (T, S) weights. On CPUs the plain kernel is
    indeed taken when attention has dropout, but for `MultiheadAttention`, which keeps a byte a weight there.
    """

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type = device_type

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        dropout = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
        if self.device_type == "cpu" and dropout > 0:
            return func(*args, **kwargs)
        query, key, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
        return _KeptByFusedAttention.apply(query, key, value)  # type: ignore[no-untyped-call]


class _KeptByFusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        # (B, H, T, D/H), in memory (B, T, H, D/H), so that joining the heads again costs no copy.
        *rows, length, _ = query.shape
        if len(rows) < 2:
            out = query.new_empty(*rows, length, value.shape[-1])
        else:
            out = query.new_empty(*rows[:-1], length, rows[-1], value.shape[-1]).transpose(-3, -2)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1]))
        return out

    @staticmethod
    def backward(*_: Any) -> Any:
        raise AssertionError("only ever run forward")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on `device` now; for the CPU, those that the system can hand out without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    import psutil

    return int(psutil.virtual_memory().available)
