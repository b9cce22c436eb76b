"""What tests of runs read of a run directory, and how they wait for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

# Ten steps of the small plan, saved at every second one, with no look at the model that isn't asked for.
QUICK = ("train.sequence_length=8", "train.save_interval=8", "train.sample_tokens=0", "train.validation_interval=1000")


def rows(run: Path, kind: str = "train") -> dict[int, dict[str, Any]]:
    """By step: a later row replaces what became obsolete."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row for row in found if row["kind"] == kind}


def events(run: Path, *kinds: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] in kinds]


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for: {what}"
        time.sleep(0.02)


def same_weights(run: Path, other: Path) -> bool:
    ours, theirs = (load_file(each / "checkpoints/latest/model.safetensors") for each in (run, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
