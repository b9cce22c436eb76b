"""Does the model start out knowing nothing, and being sure of nothing?"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from lmplay.base.base_model import hidden_of
from lmplay.checks.difference import largest, spread_of
from lmplay.checks.result import CheckResult, failed, passed, skipped
from lmplay.checks.subject import Subject, cross_entropy, losses, mode, seeded

WIDE = 1.0
"""Nats above or below ln(vocabulary). Logits of deviation s add s*s/2, as GPT-2's 0.56 adds 0.15."""
AGREEMENT = 1e-3
IGNORED = -100
"""The target of a token that is not learned, as torch has it."""


def check_initial_loss(subject: Subject) -> CheckResult:
    """The loss of the untrained model is near ln(vocabulary); `hidden`, `train_loss` and `forward` tell the same."""
    model, batch = subject.model, subject.batch
    hidden, both = hidden_of(model), None
    with torch.no_grad(), mode(model, training=False):
        with seeded(subject.seed, subject.device):
            logits = model(batch.tokens)
        loss = float(cross_entropy(logits, batch.targets))
        if hidden is not None:
            with seeded(subject.seed, subject.device):
                both = model.output_projection(hidden(batch.tokens))
    level, spread = math.log(logits.size(-1)), spread_of(logits)
    said = f"{loss:.2f}, ln({logits.size(-1)}) = {level:.2f}; spread of the logits {spread:.2f}"
    if not math.isfinite(loss):
        return failed(
            said, "a step on the way to the logits is not a number: look for divisions and logarithms of zero"
        )
    if both is not None and largest(both, logits) > AGREEMENT * spread:
        return failed(
            f"{said}; output_projection(hidden(x)) differs from forward(x) by {largest(both, logits):.2g}",
            "training goes through hidden() and generation through forward(): both must compute the same",
        )
    if (other := loss_of_its_own(subject)) is not None:
        return failed(
            f'{said}; train_loss() gives {other[0]:.3f} as "loss" where forward(x) and the targets give {other[1]:.3f}',
            "that term is what runs are compared by: the mean cross entropy of forward(tokens) and targets over all "
            "target tokens of the batch. Targets are shifted by one already, those below 0 (-100) do not count, and a "
            "mean over rows weighs short rows too much; whatever else is optimised goes under names of its own",
        )
    if loss > level + WIDE:
        return failed(
            said, "sure of wrong answers before any training: the output layer or what feeds it starts too large"
        )
    if loss < level - WIDE:
        if not model.causal:
            return skipped(said, "the model declares itself non-causal: it may read the answer")
        return failed(said, "it knows too much for an untrained model: a target leaks in, or weights were loaded")
    return passed(said)


def loss_of_its_own(subject: Subject) -> tuple[float, float] | None:
    """What `train_loss` calls "loss" and what that should be, where they differ; spread weights tell them apart.

    Asked of a whole batch, and of one whose first row has a few targets only, as a prompt that is not learned leaves.
    """
    model, batch = subject.spread, subject.batch
    if not model.causal or not hasattr(model, "train_loss"):
        return None
    few = batch.targets.clone()
    few[0, : few.size(1) * 3 // 4] = IGNORED
    with torch.no_grad(), mode(model, training=False):
        with seeded(subject.seed, subject.device):
            logits = model(batch.tokens)
        for targets in (batch.targets, few):
            with seeded(subject.seed, subject.device):
                own = float(losses(model, replace(batch, targets=targets))["loss"])
            shared = float(cross_entropy(logits, targets))
            # A NaN differs from everything.
            if not abs(own - shared) <= AGREEMENT * max(1.0, abs(shared)):
                return own, shared
    return None
