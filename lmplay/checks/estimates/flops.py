"""FLOPs a token: counted by torch while a model without storage runs, or in closed form.

Only matrix products count, a multiplication with its addition as two, as is the custom (Kaplan et al. 2020, "Scaling
Laws for Neural Language Models", section 2.1). Attention counts in full, though causality would allow for half of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lmplay.base.base_model import LMBase
from lmplay.checks.estimates.skeleton import meta_tokens
from lmplay.modules import MultiheadAttention


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Of one token in a row of `sequence_length` tokens."""

    forward: int
    sequence_length: int
    method: Literal["counted", "closed form"]
    by_module: dict[str, int]
    """Forward FLOPs a token of each module by its name, "" the model; empty in closed form."""

    @property
    def training(self) -> int:
        """Forward and backward: the backward pass multiplies twice for each product of the forward pass."""
        return 3 * self.forward


def estimate_flops(model: LMBase, sequence_length: int | None = None) -> Flops:
    """Counted on any model that runs without storage, and in closed form for one that does not."""
    length = sequence_length or model.max_len
    try:
        counted = counted_flops(model, length)
        return Flops(forward=counted[""], sequence_length=length, method="counted", by_module=counted)
    except (NotImplementedError, RuntimeError):  # an operation that needs values, or that has no meta version
        closed = closed_form_flops(model, length)
        return Flops(forward=closed, sequence_length=length, method="closed form", by_module={})


def counted_flops(model: LMBase, sequence_length: int) -> dict[str, int]:
    """What torch's counter sees in a forward pass over one row, divided by its tokens, by module; "" is the model."""
    was_training = model.training
    model.eval()
    try:
        # The counter knows the products that attention is made of, but not each of the fused kernels.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            model(meta_tokens(model, 1, sequence_length))
    finally:
        model.train(was_training)
    model_name = type(model).__name__
    by_module = {"": round(counter.get_total_flops() / sequence_length)}
    for name, operations in counter.get_flop_counts().items():
        if name.startswith(f"{model_name}."):
            by_module[name.removeprefix(f"{model_name}.")] = round(sum(operations.values()) / sequence_length)
    return by_module


def closed_form_flops(model: LMBase, sequence_length: int) -> int:
    """`2 * in * out` for each linear layer and `4 * T * D` for each attention layer.

    Exact for models of these layers that use each once; other layers are not seen.
    """
    total = 0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            total += 2 * module.in_features * module.out_features
        elif isinstance(module, MultiheadAttention):
            total += 4 * sequence_length * module.proj.in_features
    return total
