"""Checkpoints that can be talked to, by the names that the engine takes: RUN, RUN@best, RUN@STEP. Reads the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmplay.runs import RunSummary, list_checkpoints
from lmplay.utils.errors import LMPlayError
from lmplay.utils.figures import format_loss

_MOST_RUNS = 200


def checkpoint_choices(runs: Sequence[RunSummary]) -> list[tuple[str, str]]:
    """(name, what is said of it): of each run its newest, its best, and each that is kept."""
    choices = []
    for run in runs[:_MOST_RUNS]:
        loss = run.status.validation_loss
        told = f"{run.state}" + (f", validation {format_loss(loss)}" if loss else "")
        steps = _steps(run.path)
        if not steps:
            continue
        choices += [(run.name, f"newest, step {steps[-1]:,}, {told}"), (f"{run.name}@best", "best validation")]
        choices += [(f"{run.name}@{step}", f"step {step:,}") for step in reversed(steps)]
    return choices


def newest_step(root: Path, model: str) -> int | None:
    """The step of the newest checkpoint where `model` is a run, which means its newest; else None."""
    return max(_steps(root / model), default=None) if model and "@" not in model else None


def _steps(run: Path) -> list[int]:
    try:
        return sorted(int(path.name) for path in list_checkpoints(run))
    except LMPlayError:
        return []
