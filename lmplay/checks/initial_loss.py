"""Does the model start out knowing nothing, and being sure of nothing?"""

from __future__ import annotations

import math

import torch

from lmplay.base.base_model import hidden_of
from lmplay.checks.difference import largest, spread_of
from lmplay.checks.result import CheckResult, failed, passed, skipped
from lmplay.checks.subject import Subject, cross_entropy, mode

WIDE = 1.0
"""Nats above or below ln(vocabulary). Logits of deviation s add s*s/2, as GPT-2's 0.56 adds 0.15."""
AGREEMENT = 1e-3


def check_initial_loss(subject: Subject) -> CheckResult:
    """The loss of the untrained model is near ln(vocabulary); `hidden` and `forward` tell the same."""
    model, batch = subject.model, subject.batch
    with torch.no_grad(), mode(model, training=False):
        logits = model(batch.tokens)
        expected_shape = (*batch.tokens.shape, model.vocab_size)
        if logits.shape[:2] != batch.tokens.shape or logits.dim() != 3:
            return failed(
                f"logits have the shape {tuple(logits.shape)}, not {expected_shape}",
                "without a cache, forward() returns logits for every position: (B, T) -> (B, T, V)",
            )
        loss = float(cross_entropy(logits, batch.targets))
        hidden = hidden_of(model)
        both = None if hidden is None else model.output_projection(hidden(batch.tokens))
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
    if loss > level + WIDE:
        return failed(
            said, "sure of wrong answers before any training: the output layer or what feeds it starts too large"
        )
    if loss < level - WIDE:
        if not model.causal:
            return skipped(said, "the model declares itself non-causal: it may read the answer")
        return failed(said, "it knows too much for an untrained model: a target leaks in, or weights were loaded")
    return passed(said)
