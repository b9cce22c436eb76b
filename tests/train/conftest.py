"""A small plan on built-in text for runs in real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL_TRAIN = {
    "sequence_length": 32,
    "batch_size": 4,
    "mini_batch_size": 2,
    "warmup_steps": 2,
    "lr": 3e-3,
    "validation_interval": 24,
    "save_interval": 16,
    "sample_tokens": 4,
}


@pytest.fixture
def small_plan(tmp_path: Path) -> Callable[..., Path]:
    """`small_plan(samples=40, stages=1, **train)` writes a plan on `pydocs` and returns its path."""

    def write(*, samples: int = 40, stages: int = 1, **train: Any) -> Path:
        stage = {"datasets": {"docs": 1.0}, "samples": samples, "train": {**SMALL_TRAIN, **train}}
        validation = {"share": 0.2, "max_tokens": 2048}
        plan = {
            "version": 1,
            "datasets": {"docs": {"source": "builtin", "args": {"name": "pydocs"}, "validation": validation}},
            "stages": [{"name": f"part{index + 1}", **stage} for index in range(stages)],
        }
        path = tmp_path / "small.json"
        path.write_text(json.dumps(plan))
        return path

    return write
