"""One measurement of `lmplay bench`: real steps of one model with one set of switches, in a process of its own.

Started by `lmplay/cli/bench.py` as `python -m lmplay.train.bench TRIAL`, so that memory is that of this trial alone,
and one that doesn't fit ends nothing but itself. Prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from lmplay.base.runner_list import get_runner
from lmplay.data import open_stage
from lmplay.plans import load_plan
from lmplay.train.config import LossForm, PrecisionName, TrainConfig
from lmplay.train.device import AUTOCAST_TYPES, set_arithmetic
from lmplay.train.feed import to_device
from lmplay.train.keep.randomness import seed_everything
from lmplay.train.update.compiling import compile_blocks
from lmplay.train.update.memory import OutOfMemory, keep_freed_memory
from lmplay.train.update.objective import plain_head
from lmplay.train.update.optimizers import apply_freezing, build_optimizer
from lmplay.train.update.step import TrainStep
from lmplay.utils.files import to_json

PHASES = ("data", "forward", "backward", "optimizer")
MIN_STEPS, MAX_STEPS = 3, 200


class Trial(BaseModel):
    """What is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    model: dict[str, Any] = Field(default_factory=dict, description="arguments of the model's constructor")
    train: dict[str, Any] = Field(default_factory=dict, description="the experiment's own train settings")
    plan: str = Field("quickstart", description="where the text comes from")
    device: str = "cpu"
    sequence_length: int
    mini_batch_size: int = 1
    precision: PrecisionName = "float32"
    compile: bool = False
    loss: LossForm = "auto"
    seconds: float = Field(5.0, description="how long to measure, after a step that warms up")


class Clock:
    """Seconds by phase; waits for the device at each border."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = self.now()
        yield
        self.seconds[phase] += self.now() - started

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def read(self) -> dict[str, float]:
        """The seconds since the last reading."""
        read, self.seconds = self.seconds, dict.fromkeys(PHASES, 0.0)
        return read


def measure(trial: Trial) -> dict[str, Any]:
    """Medians over steps of one mini-batch each: seconds by phase, peak memory in bytes, and the FLOP/s of matrix
    products in between.
    """
    device = torch.device(trial.device)
    keep_freed_memory(device)
    seed_everything(0)
    settings = {
        "precision": trial.precision,
        "compile": trial.compile,
        "loss": trial.loss,
        "batch_size": trial.mini_batch_size,
        "mini_batch_size": trial.mini_batch_size,
        "sequence_length": trial.sequence_length,
    }
    config = TrainConfig(**{**trial.train, **settings})
    set_arithmetic(config)
    model = get_runner(trial.experiment).build_model(**trial.model).to(device).train()
    apply_freezing(model, config.freeze)
    if config.compile:
        compile_blocks(model)
    step = TrainStep(model, build_optimizer(model, config, device), config, device)
    step.phase = clock = Clock(device)
    rows = open_stage(load_plan(trial.plan), 0, sequence_length=trial.sequence_length)

    steps: list[dict[str, float]] = []
    peaks: list[float] = []
    began = time.perf_counter()
    for number in range(MAX_STEPS):
        if number > MIN_STEPS and time.perf_counter() - began > trial.seconds:
            break
        with clock("data"):
            first = number * config.batch_size % max(1, rows.num_rows - config.batch_size)
            piece = rows.rows(first, config.batch_size)
            batch = to_device(piece, first_row=first, piece_size=config.batch_size, device=device)
        step(batch, config.lr)
        taken = clock.read()
        peak = matrix_speed(device, trial.precision)
        if number:
            steps.append(taken)
            peaks.append(peak)
        else:
            began = time.perf_counter()
    return {
        "seconds": {phase: statistics.median(taken[phase] for taken in steps) for phase in PHASES},
        "steps": len(steps),
        "memory": peak_memory(device),
        "matrix_flops": statistics.median(peaks),
        "threads": torch.get_num_threads(),
        "chunked": config.loss != "plain" and not hasattr(model, "train_loss") and plain_head(model) is not None,
    }


def matrix_speed(device: torch.device, precision: PrecisionName, times: int = 3) -> float:
    """FLOP/s of the best of a few square matrix products in the arithmetic of `precision`."""
    size = 2048 if device.type == "cpu" else 8192
    a = torch.ones(size, size, device=device, dtype=AUTOCAST_TYPES.get(precision, torch.float32))
    out, clock = torch.empty_like(a), Clock(device)
    best = 0.0
    for _ in range(times):
        started = clock.now()
        torch.mm(a, a, out=out)
        best = max(best, 2 * size**3 / (clock.now() - started))
    return best


def peak_memory(device: torch.device) -> int:
    """Bytes that were taken at most: on CUDA of the device, else by this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return peak_resident()


def peak_resident() -> int:
    """Bytes that this process took at most.

    Linux counts in `getrusage` also what the process that started this one had taken by then: a child of a large
    process would seem large.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
        if found is not None:
            return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(arguments: list[str]) -> int:
    trial = Trial.model_validate_json(arguments[0])
    try:
        result = measure(trial)
    except OutOfMemory as error:
        result = {"error": f"out of memory ({error})"}
    print(to_json(result), flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
