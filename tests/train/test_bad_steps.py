"""Steps that can't be made as they stand: what a run does about losses that are no numbers, or too large, and about
memory that does not suffice. Each in a real process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lmplay.data import open_stage
from lmplay.plans import parse_plan
from lmplay.runs import read_status
from tests.train.reading import QUICK, events, rows, same_weights

NewRun = Callable[..., Path]


def tokens_of(run: Path, row_numbers: list[int]) -> list[list[int]]:
    asked = json.loads((run / "run.json").read_text())
    plan = parse_plan(asked["plan"]["content"], name="small", folder=run)
    data = open_stage(plan, 0, sequence_length=8, seed=asked["seed"])
    return [data.rows(row, 1).tokens[0].tolist() for row in row_numbers]


def test_a_sample_that_gives_nan_costs_its_step_and_nothing_else(new_run: NewRun, workers: Any) -> None:
    run = new_run("skips", sets=QUICK)
    assert workers.run(run, poison=tokens_of(run, [9])) == 0  # rows 8 to 11 are the third step
    made = rows(run)
    assert [step for step, row in made.items() if row.get("skipped")] == [3]
    assert made[3]["loss"] == "NaN"
    assert isinstance(made[10]["loss"], float)
    assert "the loss is not finite" in events(run, "warning")[0]["message"]
    weights = load_file(run / "checkpoints/latest/model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def test_bad_steps_in_a_row_go_back_once_and_leave_their_batches_out(new_run: NewRun, workers: Any) -> None:
    run = new_run("goes_back", sets=(*QUICK, "train.max_bad_steps=2"))
    assert workers.run(run, poison=tokens_of(run, [20, 26])) == 0  # in the sixth and the seventh step
    resumed = events(run, "resumed")
    assert [(event["step"], event["left_out"]) for event in resumed] == [(4, [[0, 20], [0, 24]])]
    assert sorted(rows(run)) == list(range(1, 9)), "ten batches, two of them left out"
    assert read_status(run).step == 8
    assert [event["message"].split(" is passed over")[0] for event in events(run, "warning")[-2:]] == [
        "the batch at row 20",
        "the batch at row 24",
    ]

    # Killed after it went back: nothing of the course that was left is taken up again.
    killed = new_run("killed", sets=(*QUICK, "train.max_bad_steps=2"))
    assert workers.run(killed, poison=tokens_of(run, [20, 26]), die_in_the_middle_of_save=4) == -9
    assert workers.run(killed, poison=tokens_of(run, [20, 26])) == 0
    assert [event["step"] for event in events(killed, "resumed")] == [4, 4, 4]
    assert same_weights(killed, run)


def test_a_loss_that_jumps_is_marked_in_the_events(
    small_plan: Callable[..., Path], new_run: NewRun, workers: Any
) -> None:
    run = new_run("jumps", plan=small_plan(samples=240), sets=(*QUICK, "train.save_interval=1000"))
    assert workers.run(run, inflate=tokens_of(run, [222])) == 0
    (spike,) = events(run, "loss_spike")
    assert (spike["step"], spike["row"]) == (56, 220)
    assert spike["loss"] == rows(run)[56]["loss"] > spike["expected"] + 1


def test_when_going_back_does_not_help_it_stops_and_names_parameters_samples_and_step(
    new_run: NewRun, workers: Any
) -> None:
    run = new_run("hopeless", sets=(*QUICK, "train.max_bad_steps=2"))
    assert workers.run(run, poison=tokens_of(run, [*range(20, 40)])) == 1
    status = read_status(run)
    assert status.state == "failed"
    assert "2 updates in a row had no finite loss" in status.reason
    first, second = events(run, "not_finite")
    assert first["step"] == 6
    assert second["step"] == 6, "the rows after those left out are no better"
    assert second["gradients"] == ["fc.weight"], "the poison lies between the blocks and the head"
    assert second["weights"] == []
    assert {sample["row"] for sample in first["samples"]} <= set(range(20, 24))
    assert all(isinstance(sample["text"], str) and sample["text"] for sample in first["samples"])


def test_out_of_memory_halves_the_piece_and_repeats_the_step(new_run: NewRun, workers: Any) -> None:
    wide = (*QUICK, "train.sequence_length=32", "train.batch_size=24", "train.mini_batch_size=24", "train.loss=plain")
    run = new_run("large", sets=wide, limits={"steps": 2})
    assert workers.run(run, limited_memory=320) == 0
    said = [event["message"] for event in events(run, "warning")]
    assert said[0].startswith("out of memory with 24 samples at once: going on with 12")
    assert len(said) <= 2
    assert sorted(rows(run)) == [1, 2]
