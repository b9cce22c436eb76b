"""An optimizer step that does nothing where the gradient is not finite, decided on the device: no waiting for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from lmplay.train.parallel.tensors import local

# SGD's fused kernel is not among them: skipped at its very first step, it would leave a momentum behind that was never
# written.
_SKIP_THEMSELVES = (torch.optim.AdamW, torch.optim.Adam, torch.optim.Adagrad)


def skips_itself(optimizer: Optimizer) -> bool:
    """Whether its fused kernel leaves weights and state alone when `found_inf` is set."""
    return isinstance(optimizer, _SKIP_THEMSELVES) and bool(optimizer.defaults["fused"])


@contextlib.contextmanager
def undone_unless(finite: Tensor, optimizer: Optimizer) -> Iterator[None]:
    """Take back the step that is made inside where `finite`, a boolean scalar on the device, is false.

    Costs a copy of the weights and the state for the time of the step.
    """
    before = {id(tensor): (tensor, tensor.clone()) for tensor in _tensors(optimizer)}
    yield
    with torch.no_grad():
        for tensor in _tensors(optimizer):
            # State that was made in this very step begins as zeros in each of these rules.
            old = before[id(tensor)][1] if id(tensor) in before else torch.zeros_like(tensor)
            tensor.copy_(torch.where(finite.to(tensor.device, non_blocking=True), tensor, old))


def _tensors(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield local(parameter)
                yield from (local(value) for value in optimizer.state[parameter].values() if isinstance(value, Tensor))
