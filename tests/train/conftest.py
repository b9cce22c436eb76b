"""A small plan on built-in text for runs in real processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from lmplay.cli.launch import Asked, prepare, take_run

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
        validation = {"share": 0.2, "max_tokens": 256}
        plan = {
            "version": 1,
            "datasets": {"docs": {"source": "builtin", "args": {"name": "pydocs"}, "validation": validation}},
            "stages": [{"name": f"part{index + 1}", **stage} for index in range(stages)],
        }
        path = tmp_path / "small.json"
        path.write_text(json.dumps(plan))
        return path

    return write


@dataclass
class Workers:
    """Starts workers of runs as real processes, forked from one that has imported torch already."""

    context: Any
    started: list[BaseProcess] = field(default_factory=list)

    def start(self, run: Path, environment: dict[str, str] | None = None, **faults: Any) -> BaseProcess:
        given = {"folder": str(run), "environment": environment or {}, "faults": faults}
        process = self.context.Process(
            target=runpy.run_path, args=(str(Path(__file__).with_name("forked_worker.py")), given, "__main__")
        )
        process.start()
        self.started.append(process)
        return process

    def run(self, run: Path, environment: dict[str, str] | None = None, **faults: Any) -> int:
        """Start one and wait for its end; the exit status, negative for a signal."""
        process = self.start(run, environment, **faults)
        process.join(120)
        assert process.exitcode is not None, "the worker did not end within two minutes"
        return process.exitcode


@pytest.fixture
def workers(token_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:  # noqa: ARG001 - inherited
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm_start"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]]))
    forkserver.ensure_running()
    workers = Workers(context)
    yield workers
    for process in workers.started:
        process.kill()
        process.join()


def metrics(run: Path, kind: str) -> dict[int, dict[str, Any]]:
    """Rows by step: a later row replaces what became obsolete."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row for row in found if row["kind"] == kind}


@pytest.fixture
def new_run(small_plan: Callable[..., Path]) -> Callable[..., Path]:
    """`new_run("name", plan=..., sets=("train.ema=0.9",), **asked)` makes the directory of a run of a tiny gpt2ish."""

    def make(name: str, *, plan: Path | None = None, sets: tuple[str, ...] = (), **asked: Any) -> Path:
        tiny = ("model.embed_dim=8", "model.num_heads=2", "model.num_blocks=2", "model.max_len=32")
        request = {"experiment": "gpt2ish", "plan": str(plan or small_plan()), "device": "cpu", **asked}
        tiny = tiny if request["experiment"] == "gpt2ish" else ()
        return take_run(prepare(Asked(**request, sets=(*tiny, *sets))), name=name).path

    return make
