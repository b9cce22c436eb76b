"""Does mixed precision keep the result? Autocast's logits and loss against those of float32."""

from __future__ import annotations

import torch

from lmplay.checks.difference import largest, spread_of
from lmplay.checks.result import CheckResult, failed, passed
from lmplay.checks.subject import Subject, cross_entropy, mode, seeded

LOGITS = 0.25
"""Of the spread of the logits, at the worst of all positions: bfloat16 keeps 8 bits a number."""
LOSS = 0.02


def check_precision(subject: Subject) -> CheckResult:
    """Under bfloat16 autocast the loss stays, and no logit moves by more than a quarter of their spread."""
    model, batch = subject.model, subject.batch
    with torch.no_grad(), mode(model, training=False):
        with seeded(subject.seed, subject.device):
            exact = model(batch.tokens)
        try:
            with seeded(subject.seed, subject.device), torch.autocast(subject.device.type, dtype=torch.bfloat16):
                rounded = model(batch.tokens)
        except RuntimeError as error:
            return failed(
                f"under bfloat16 autocast the forward pass raises: {' '.join(str(error).split())[:300]}",
                "a tensor that was made in float32 meets one that autocast has made bfloat16: make it in the other's "
                "type, or bring that one to its own with .to(y.dtype)",
            )
        losses = [float(cross_entropy(logits, batch.targets)) for logits in (exact, rounded)]
    moved, spread = largest(rounded, exact), spread_of(exact)
    said = (
        f"bfloat16 autocast: loss {losses[1]:.4f} for {losses[0]:.4f}, "
        f"logits within {moved / spread:.1%} of their spread"
    )
    if not torch.isfinite(rounded).all():
        return failed(
            said, "a value leaves the range or the precision of bfloat16: a large negative fill, a tiny epsilon"
        )
    if moved > LOGITS * spread or abs(losses[1] - losses[0]) > LOSS * max(1.0, abs(losses[0])):
        return failed(
            said,
            "a step needs float32 and runs in bfloat16: a long sum, positions, a softmax outside of torch's own "
            "functions, or what a choice is made from (top-k, argmax, sign); wrap it in torch.autocast(..., "
            "enabled=False)",
        )
    return passed(said)
