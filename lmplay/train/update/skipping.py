"""An optimizer step that does nothing where the gradient is not finite, decided on the device: no waiting for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from lmplay.train.parallel.tensors import local

# Their fused kernels leave weights and state alone when `found_inf` is set. SGD's is not among them: skipped at its
# very first step, it would leave a momentum behind that was never written.
SKIP_THEMSELVES = (torch.optim.AdamW, torch.optim.Adam, torch.optim.Adagrad)


def step_if(finite: Tensor, optimizer: Optimizer) -> None:
    """`optimizer.step()`, of which nothing remains where `finite` (a boolean scalar on the device) is false."""
    for part in getattr(optimizer, "parts", [optimizer]):
        if isinstance(part, SKIP_THEMSELVES) and part.defaults["fused"]:
            part.grad_scale = None  # type: ignore[union-attr]
            part.found_inf = (~finite).float()  # type: ignore[union-attr]
            part.step()
        else:
            with _undone_unless(finite, part):
                part.step()


@contextlib.contextmanager
def _undone_unless(finite: Tensor, optimizer: Optimizer) -> Iterator[None]:
    """Costs a copy of the weights and the state for the time of the step."""
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
