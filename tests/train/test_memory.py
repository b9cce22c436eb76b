"""`--mini-batch-size auto`: what a sample takes is counted, not guessed."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmplay.train.update import memory
from lmplay.train.update.memory import OutOfMemory, as_out_of_memory, largest_piece

CPU = torch.device("cpu")


def accumulate(batch: torch.Tensor) -> None:
    """Keeps a million float32 a sample between forward and backward, beside ten million in any case."""
    fixed = torch.ones(10_000_000, requires_grad=True)
    samples = torch.ones(len(batch), 1_000_000, requires_grad=True)
    (fixed.exp().sum() + samples.exp().sum()).backward()


@pytest.mark.parametrize(("free", "expected"), [(10**9, 50), (100_000_000, 6), (1, 1)])
def test_the_most_that_fit_into_half_of_the_free_memory(
    free: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Memory", (), {"available": free}))
    assert largest_piece(accumulate, torch.ones, most=50, device=CPU) == expected  # type: ignore[arg-type]


def test_finding_out_draws_nothing_from_the_trainings_randomness() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    largest_piece(torch.rand, lambda size: size, most=4, device=CPU)  # type: ignore[arg-type]
    assert torch.equal(torch.rand(1), expected)


def test_memory_that_cannot_be_had_is_recognised_and_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(OutOfMemory, match="allocate"), as_out_of_memory():
        torch.empty(1 << 50)
    with pytest.raises(RuntimeError, match="size"), as_out_of_memory():
        torch.ones(2) + torch.ones(3)


MEMORY_AGAIN = """
import resource, torch
from lmplay.train.update.memory import give_back_freed_memory, keep_freed_memory

layers = torch.nn.Sequential(*(torch.nn.Tanh() for _ in range(4)))

def cleared(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        layers(torch.ones(1 << 13, 512, requires_grad=True)).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
cleared(2)
print(cleared(4))
keep_freed_memory(torch.device("cpu"))
cleared(2)
print(cleared(4))
give_back_freed_memory()
print(cleared(4))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_step_finds_the_memory_of_the_one_before_until_it_is_given_back() -> None:
    """Counted in pages that the system had to clear for four passes through layers that make tensors of 16 MiB."""
    done = subprocess.run([sys.executable, "-c", MEMORY_AGAIN], capture_output=True, text=True, check=True)
    before, kept, given_back = map(int, done.stdout.split())
    assert kept < before / 2
    assert given_back > kept


def test_auto_is_found_once_and_kept_over_a_resume(new_run: Callable[..., Path], workers: Any) -> None:
    sets = ("train.sequence_length=8", "train.mini_batch_size=auto", "train.sample_tokens=0")
    run = new_run("auto", sets=sets, limits={"steps": 2})
    assert workers.run(run) == 0
    asked = json.loads((run / "run.json").read_text())
    asked["request"]["limits"]["steps"] = 3
    (run / "run.json").write_text(json.dumps(asked))
    assert workers.run(run) == 0
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["samples"] for event in events if event["event"] == "mini_batch"] == [4], "the whole batch fits"
