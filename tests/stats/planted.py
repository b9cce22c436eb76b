"""Runs with a known truth, written as a worker writes them."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from lmplay.runs import RunWriter, create_run


def plant(
    root: Path,
    name: str,
    *,
    experiment: str = "base",
    seed: int = 0,
    margin: float = 0.0,
    noise: float = 0.01,
    steps: int = 400,
    every: int = 20,
    speed: float = 1.0,
    flops: float = 6e6,
    validation_key: str = "k",
    tokenizer: str = "gpt2",
    state: str = "done",
    nan_from: int | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    """A run whose validation falls to 3 + `margin` + noise (normal, of its own seed); two stages of half the steps."""
    dice = random.Random(f"{name} {seed}")
    offset = dice.gauss(0, noise)
    spec = {"source": "builtin", "tokenizer": tokenizer, "validation": {"share": 0.1}}
    stages = [{"name": "first", "tokens": 1000}, {"name": "second", "tokens": 1000}]
    path = create_run(
        experiment,
        name=name,
        root=root,
        seed=seed,
        plan={"name": "quick", "content": {"datasets": {"docs": spec}, "stages": stages}},
        config={"model": {"width": 64}, "stages": [{"name": "first", "train": {"lr": 1e-3}}], **(config or {})},
        cost={"parameters": int(flops / 6), "training_flops_per_token": flops},
    )
    with RunWriter(path) as writer:
        writer.status(state="running", validation_key=validation_key)
        rows: list[dict[str, Any]] = []
        for step in range(1, steps + 1):
            loss = 3 + 7 * math.exp(-step / 80) + margin * (1 - math.exp(-step / 40)) + offset
            if nan_from is not None and step >= nan_from:
                loss = math.nan
            stage = "first" if step <= 200 else "second"
            position = {"step": step, "samples": step * 8, "tokens": step * 512, "time": step / 10 / speed}
            row = {"stage": stage, **position}
            rows.append({"kind": "train", **row, "loss": loss + dice.gauss(0, 0.1), "lr": 1e-3})
            if step % every == 0:
                rows.append({"kind": "validate", **row, "loss": loss, "bits_per_byte": loss / 3, "accuracy": 0.3})
        writer.metrics(*rows)
        writer.status(state=state)
    return path
