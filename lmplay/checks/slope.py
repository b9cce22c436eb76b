"""Is the gradient the slope of the loss? Autograd's is held against what the loss does when the weights move.

A `detach()`, `.data` or `no_grad` on one of several paths leaves every parameter with a gradient, and a wrong one.
Called by the check of gradients.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lmplay.base.base_model import LMBase
from lmplay.checks.subject import Subject, duplicate, losses, mode, seeded

STEP = 1e-3
"""Of each weight: far above float32's rounding. A choice (top-k, argmax) may flip within it, hence the median."""
DIRECTIONS = 3
TOLERANCE = 0.05
LEAST_SLOPE = 0.01
"""Below it rounding shows: two losses around 11 are known to 1e-6, and lie two steps apart."""
LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class WrongSlope:
    """`share`: the typical error, of the larger of the two slopes; `wrong` and `right` name parts of the model."""

    share: float
    wrong: tuple[str, ...]
    right: tuple[str, ...]


def find_wrong_slope(subject: Subject) -> WrongSlope | None:
    """The parts whose gradient is not the slope of the loss; None where it is, or where that cannot be told.

    It cannot for a model that gives another loss each time, nor for weights in less than float32. Only "loss" is
    looked at: terms beside it may hold back their gradient on purpose.
    """
    model = duplicate(subject.spread)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        return None
    worst = 0.0
    # Whatever is cut in training mode only is rarer than what training mode changes from pass to pass.
    for training in (True, False):
        error = slope_error(model, subject, training=training)
        if error is None or error <= TOLERANCE:
            return None
        worst = max(worst, error)
    wrong: list[str] = []
    right: list[str] = []
    for part in dict.fromkeys(part_of(name) for name, _ in model.named_parameters()):
        error = slope_error(model, subject, training=False, part=part)
        if error is not None:
            (wrong if error > TOLERANCE else right).append(part)
    return WrongSlope(share=worst, wrong=tuple(wrong), right=tuple(right))


def part_of(name: str) -> str:
    """The part that a parameter belongs to, repeated parts one by one: "tok_embed", "blocks.0", "blocks.1", ..."""
    part = re.match(r"(?:.*?\.\d+(?=\.)|[^.]*)", name)
    assert part is not None
    return part[0]


def slope_error(model: LMBase, subject: Subject, *, training: bool, part: str | None = None) -> float | None:
    """The median over directions of the relative error; None where there is no slope or no two losses agree.

    A direction scales what each weight takes from each of its inputs by a factor of its own, near 1. `model` is a copy
    of the subject's; its weights are moved and left as they were.
    """
    batch = subject.batch.rows(1, LENGTH)

    def loss() -> torch.Tensor:
        with seeded(subject.seed, subject.device), mode(model, training=training):
            if hasattr(model, "train_loss"):
                return losses(model, batch)["loss"].double()
            return F.cross_entropy(model(batch.tokens).flatten(0, 1).double(), batch.targets.flatten())

    model.zero_grad(set_to_none=True)
    total = loss()
    if not total.requires_grad:
        return None
    total.backward()  # type: ignore[no-untyped-call]
    still = dict(subject.spread.named_parameters())
    moved = [
        (parameter, still[name])
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.dim() > 0 and part in (None, part_of(name))
    ]
    generator = torch.Generator().manual_seed(subject.seed)
    errors = []
    with torch.no_grad():
        if not torch.equal(loss(), total):
            return None
        # How much of the slope each input of each weight has: the gradient times the weight, summed over the outputs.
        shares = [
            (moving.grad * weight).reshape(-1, weight.size(-1)).sum(0) if moving.grad is not None else torch.zeros(())
            for moving, weight in moved
        ]
        for _ in range(DIRECTIONS):
            factors = [torch.randn(weight.size(-1), generator=generator).to(weight) for _, weight in moved]
            promised = sum(float((share * factor).sum()) for share, factor in zip(shares, factors, strict=True))
            ends = []
            for step in (STEP, -STEP):
                for (moving, weight), factor in zip(moved, factors, strict=True):
                    torch.mul(weight, 1 + step * factor, out=moving)
                ends.append(float(loss()))
            measured = (ends[0] - ends[1]) / (2 * STEP)
            larger = max(abs(promised), abs(measured))
            errors.append(abs(promised - measured) / larger if larger > LEAST_SLOPE else 0.0)
        for moving, weight in moved:
            moving.copy_(weight)
    return statistics.median(errors)
