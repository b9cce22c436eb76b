"""Can the model learn at all? It is made to overfit one small batch."""

from __future__ import annotations

import math
import time

import torch

from lmplay.checks.result import CheckResult, failed, passed
from lmplay.checks.subject import Subject, losses, seeded

STEPS = 100
SECONDS = 30.0
"""A large model on a CPU gets this long; what it has learned by then is judged."""
RATES = (3e-3, 1e-3, 3e-4)
ENOUGH = 0.1
"""Share of the loss that must be gone when time is up before half of it is."""


def check_learns(subject: Subject) -> CheckResult:
    """AdamW halves the loss of one batch. The version's own learning rate is tried first, then others."""
    batch = subject.batch.rows(2, 32)
    preset = subject.runner.train_preset.get("lr")
    rates = [float(preset)] if preset is not None else []
    tried = []
    for rate in [*rates, *RATES]:
        course = overfit(subject, rate)
        if not math.isfinite(course[-1]):
            tried.append(f"not a number after {len(course) - 1} steps at {rate:g}")
        elif course[-1] <= course[0] / 2:
            return passed(
                f"half the loss after {len(course) - 1} steps on one batch: {course[0]:.2f} to {course[-1]:.2f} at "
                f"learning rate {rate:g}"
            )
        elif len(course) <= STEPS and course[-1] <= course[0] * (1 - ENOUGH):
            return passed(
                f"{course[0]:.2f} to {course[-1]:.2f} in the {len(course) - 1} steps of {SECONDS:.0f} s, "
                f"at learning rate {rate:g}"
            )
        else:
            tried.append(f"{course[0]:.2f} to {course[-1]:.2f} in {len(course) - 1} steps at {rate:g}")
    return failed(
        f"the loss of a single batch of {batch.num_targets} tokens: {'; '.join(tried)}",
        "the loss is not connected to the weights, or a layer loses what it is given: see the check of gradients",
    )


def overfit(subject: Subject, rate: float) -> list[float]:
    """The loss before each step, until it is half of the first, not finite, or out of steps or time."""
    model = subject.fresh().train()
    batch = subject.batch.rows(2, 32)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0, fused=True
    )
    course: list[float] = []
    end = time.monotonic() + SECONDS
    with seeded(subject.seed, subject.device):
        for _ in range(STEPS + 1):
            optimizer.zero_grad(set_to_none=True)
            terms = losses(model, batch)
            course.append(float(terms["loss"].detach()))
            if not math.isfinite(course[-1]) or course[-1] <= course[0] / 2 or time.monotonic() > end:
                break
            total = torch.stack(list(terms.values())).sum()
            if not total.requires_grad:
                break
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return course
