"""Run by the fixture `workers` in a process of its own: `work(folder)`, after what a test wants to go wrong in it.

Given as globals: `folder`, `environment`, and `faults`, names of functions below. Not a test module.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from lmplay.train.keep import checkpoint
from lmplay.train.worker import work

folder: str
environment: dict[str, str]
faults: dict[str, Any]


def die_in_the_middle_of_save(number: int) -> None:
    """SIGKILL when half of the trainer state of the process's save number `number` is on the disk."""
    really_save, saved = torch.save, 0

    def save(content: Any, path: Path) -> None:
        nonlocal saved
        saved += 1
        really_save(content, path)
        if saved == number:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.torch.save = save  # type: ignore[assignment]


def poison(rows: list[list[int]], factor: float | None = None) -> None:
    """The model's hidden states are NaN, or `factor` times as large, for samples with exactly these tokens."""
    from lmplay.exp.gpt2ish.model import GPT2

    honest = GPT2.hidden
    poisoned = torch.tensor(rows)

    def hidden(self: GPT2, x: torch.Tensor, cache: Any = None, documents: Any = None) -> torch.Tensor:
        states = honest(self, x, cache, documents)
        if cache is None and x.shape[1] == poisoned.shape[1]:
            bad = (x[:, None] == poisoned).all(-1).any(-1)  # (B,)
            states = torch.where(bad[:, None, None], torch.nan if factor is None else states * factor, states)
        return states

    GPT2.hidden = hidden


def inflate(rows: list[list[int]]) -> None:
    """Samples with exactly these tokens have a loss that is large."""
    poison(rows, factor=1000.0)


def signalled_early(number: int) -> None:
    """As if the signal had come while the worker imported torch."""
    from lmplay.train.early_signals import remember

    remember()
    os.kill(os.getpid(), number)


def slow_validation(seconds: float) -> None:
    """Every piece of the validation text takes its time."""
    from lmplay.train.update.objective import Objective

    evaluate = Objective._evaluate

    def slow(self: Objective, *arguments: Any) -> Any:
        time.sleep(seconds)
        return evaluate(self, *arguments)

    Objective._evaluate = slow  # type: ignore[method-assign]


def save_takes_until_step(number: int) -> None:
    """The disk takes until that step has been logged, a minute at most."""
    really_save = torch.save
    logged = re.compile(rf'"step": ?{number}\b')

    def save(content: Any, path: Path) -> None:
        end = time.monotonic() + 60
        while not logged.search((path.parents[2] / "metrics.jsonl").read_text()) and time.monotonic() < end:
            time.sleep(0.01)
        really_save(content, path)

    checkpoint.torch.save = save  # type: ignore[assignment]


def slow_step(seconds: float) -> None:
    from lmplay.train.update.step import TrainStep

    accumulate = TrainStep.accumulate

    def slow(self: TrainStep, *arguments: Any, **keywords: Any) -> Any:
        time.sleep(seconds)
        return accumulate(self, *arguments, **keywords)

    TrainStep.accumulate = slow  # type: ignore[method-assign]


def throw_at_step(number: int) -> None:
    from lmplay.train.update.step import TrainStep

    accumulate, made = TrainStep.accumulate, 0

    def throw(self: TrainStep, *arguments: Any, **keywords: Any) -> Any:
        nonlocal made
        made += 1
        if made == number:
            raise ValueError("only here")
        return accumulate(self, *arguments, **keywords)

    TrainStep.accumulate = throw  # type: ignore[method-assign]


def limited_memory(megabytes: int) -> None:
    """No more than so much beyond what the process has taken up to its first step."""
    from lmplay.train.update.step import TrainStep

    accumulate = TrainStep.accumulate

    def limit_first(self: TrainStep, *arguments: Any, **keywords: Any) -> Any:
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + (megabytes << 20), resource.RLIM_INFINITY))
        return accumulate(self, *arguments, **keywords)

    TrainStep.accumulate = limit_first  # type: ignore[method-assign]


def memory_fails_in_the_sum(step: int) -> None:
    """In the last backward pass of that step, when the sum over the processes of the head's gradient has begun."""
    from lmplay.train.update.step import TrainStep

    accumulate, made = TrainStep.accumulate, 0

    def no_room(_: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("no room for the gradient")

    def watch(_: Any, __: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(no_room)

    def fail(self: TrainStep, batch: Any, *, together: bool = True, **keywords: Any) -> Any:
        nonlocal made
        made += together
        if made != step or not together:
            return accumulate(self, batch, together=together, **keywords)
        with self.model.blocks[0].register_forward_hook(watch):
            return accumulate(self, batch, **keywords)

    TrainStep.accumulate = fail  # type: ignore[method-assign]


def full_disk_while(marker: str) -> None:
    """Nothing can be written for a checkpoint as long as the file `marker` exists."""
    really_save_file = checkpoint.save_file

    def save_file(*arguments: Any, **keywords: Any) -> None:
        if Path(marker).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really_save_file(*arguments, **keywords)

    checkpoint.save_file = save_file


if __name__ == "__main__":
    os.environ.update(globals()["environment"])
    log = os.open(Path(globals()["folder"]) / "worker.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for fault, argument in globals()["faults"].items():
        globals()[fault](argument)
    status = work(Path(globals()["folder"]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
