"""A trace of a few steps: left-out beginnings, the phases by name, what is there when the training ends early."""

from __future__ import annotations

import errno
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
    profile = StepProfile(
        tmp_path, asked, torch.device("cpu"), lambda path, text: announced.append((path, text)), pytest.fail
    )
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


@pytest.mark.parametrize("full", ["folder", "log"])
def test_a_full_disk_costs_the_profile_and_not_the_run(tmp_path, full):
    def announce(*trace):  # noqa: ARG001
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "run" / "profile"  # there is no folder `run` to make it in
    warned = []
    profile = StepProfile(tmp_path if full == "log" else folder, 1, torch.device("cpu"), announce, warned.append)
    for _ in range(3):
        with profile.step():
            torch.ones(3) + 1
    (warning,) = warned
    assert warning.startswith("the profile could not be written whole: ")
