"""Killed ten times and resumed, a run gives bit by bit what it gives undisturbed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lmplay.train.keep.checkpoint import load_trainer_state, tensors_in
from tests.train.reading import rows

TRAIN = {
    "sequence_length": 8,
    "batch_size": 4,
    "mini_batch_size": 2,
    "warmup_steps": 4,
    "lr": 3e-3,
    "validation_interval": 36,
    "save_interval": 12,
    "sample_tokens": 2,
}
PYDOCS = {"source": "builtin", "args": {"name": "pydocs"}, "validation": {"share": 0.1, "max_tokens": 64}}
VERSES = {"source": "json", "args": {"data_files": "verses.jsonl"}, "validation": {"share": 0.1, "max_tokens": 64}}


def stage(name: str, samples: int, *, weights: dict[str, float], **train: Any) -> dict[str, Any]:
    return {"name": name, "datasets": weights, "samples": samples, "train": {**TRAIN, **train}}


CONFIGURATIONS = {
    "dropout, cosine and a moving average": [
        stage("learn", 120, weights={"pydocs": 1.0}, schedule="cosine", ema=0.9, weight_decay=0.1)
    ],
    "mixed stages with optimizers and arithmetic of their own": [
        stage(
            "mixed", 54, weights={"pydocs": 0.6, "verses": 0.4}, mini_batch_size=3, schedule="linear", precision="fp16"
        ),
        stage(
            "alone",
            66,
            weights={"verses": 1.0},
            optimizer="sgd",
            schedule="inverse_sqrt",
            freeze=["tok_embed"],
            ema=0.9,
        ),
    ],
    "muon and packed documents": [
        stage("learn", 120, weights={"pydocs": 1.0}, optimizer="muon", schedule="wsd", mini_batch_size=4)
    ],
}
KILLS = 10


def figures(run: Path) -> dict[str, dict[int, tuple[float, ...]]]:
    return {
        "train": {s: (r["loss"], r["grad_norm"], r["lr"], r["tokens"]) for s, r in rows(run, "train").items()},
        "validate": {s: (r["loss"], r["accuracy"]) for s, r in rows(run, "validate").items()},
    }


def wait_for_rows(run: Path, count: int, process: BaseProcess) -> None:
    """Until the process has written that many rows of its own."""
    metrics = run / "metrics.jsonl"
    before = metrics.stat().st_size
    while process.is_alive() and metrics.read_bytes()[before:].count(b'"kind": "train"') < count:
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_killed_ten_times_and_resumed_is_bit_identical(
    name: str, tmp_path: Path, new_run: Callable[..., Path], workers: Any
) -> None:
    stages = CONFIGURATIONS[name]
    used = {dataset for each in stages for dataset in each["datasets"]}
    datasets = {key: value for key, value in {"pydocs": PYDOCS, "verses": VERSES}.items() if key in used}
    verses = [json.dumps({"text": f"verse {number}: " + "la " * (number % 17)}) for number in range(200)]
    (tmp_path / "verses.jsonl").write_text("\n".join(verses))
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"version": 1, "datasets": datasets, "stages": stages}))
    sets = ("data.packing=document",) if "packed" in name else ()

    reference = new_run("undisturbed", plan=plan, sets=sets, force=True)
    assert workers.run(reference) == 0
    expected = figures(reference)

    run = new_run("killed", plan=plan, sets=sets, force=True)
    (run / "metrics.jsonl").touch()
    assert workers.run(run, die_in_the_middle_of_save=3) == -9
    assert any(path.name.endswith(".tmp") for path in (run / "checkpoints").iterdir()), "it died while saving"
    chance = random.Random(name)
    for _ in range(KILLS - 1):
        process = workers.start(run)
        wait_for_rows(run, chance.randint(2, 5), process)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -9, "it was to be killed before its end"
    assert workers.run(run) == 0

    assert figures(run) == expected
    ours, theirs = (load_file(each / "checkpoints/latest/model.safetensors") for each in (run, reference))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    ours, theirs = (load_trainer_state(each / "checkpoints/latest") for each in (run, reference))
    assert all(torch.equal(a, b) for a, b in zip(tensors_in(ours), tensors_in(theirs), strict=True))
