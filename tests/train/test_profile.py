"""A trace of a few steps: left-out beginnings, the phases by name, what is there when the training ends early."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from lmplay.train.profile import SKIPPED, StepProfile


def names_in(trace) -> set[str]:
    return {event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}


@pytest.mark.parametrize(("steps", "asked", "seen"), [(6, 2, {2, 3}), (4, 9, {2, 3}), (2, 9, set()), (6, 0, set())])
def test_the_asked_steps_are_traced_but_for_the_first(tmp_path, steps, asked, seen):
    announced = []
    profile = StepProfile(tmp_path, asked, torch.device("cpu"), lambda path, text: announced.append((path, text)))
    assert SKIPPED == 2
    for number in range(steps):
        with profile.step(), torch.profiler.record_function(f"step {number}"):
            torch.ones(3) + 1
    profile.finish()
    profile.finish()
    if not seen:
        assert not announced
        return
    ((trace, summary),) = announced
    assert {name for name in names_in(trace) if str(name).startswith("step ")} == {f"step {n}" for n in seen}
    assert "aten::add" in summary
