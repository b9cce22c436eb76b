"""The norm of the whole gradient, and a step with the gradient scaled down to the largest norm allowed.

Where a fused kernel divides what it reads anyway, scaling costs no pass of its own over the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmplay.train.parallel.tensors import local, whole
from lmplay.train.update.skipping import skips_itself, undone_unless


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all of them together, a scalar on their device; spread ones are put together.

    On a CPU row by row: over a whole tensor torch sums so many squares in float32 that the norm of a large embedding's
    gradient is a quarter of a percent off, and takes half as long again.
    """
    by_rows = all(gradient.device.type == "cpu" and local(gradient) is gradient for gradient in gradients)
    if not gradients or not by_rows:
        return whole(nn.utils.get_total_norm(gradients))
    rows = [gradient.flatten(1) if gradient.ndim > 1 else gradient.reshape(1, -1) for gradient in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.cat([torch.linalg.vector_norm(part, dim=1) for part in rows]))
    return norm


def clipped_step(optimizer: Optimizer, *, grad_norm: Tensor, largest: float, finite: Tensor) -> None:
    """`optimizer.step()` with a gradient of at most the norm `largest`, zero for any; nothing remains of it where
    `finite`, a boolean scalar on the device, is false.

    A fused optimizer leaves in `.grad` what it used, as the others do.
    """
    # A kernel takes what it divides by in float32: not exact enough for a gradient in float64.
    folds = grad_norm.dtype == torch.float32
    for part in getattr(optimizer, "parts", [optimizer]):
        fused = skips_itself(part)
        if largest and not (fused and folds):
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            nn.utils.clip_grads_with_norm_(parameters, largest, grad_norm)
        if fused:
            part.grad_scale = (grad_norm / largest).clamp_min(1.0) if largest and folds else None
            part.found_inf = (~finite).float()
            part.step()
        else:
            with undone_unless(finite, part):
                part.step()
