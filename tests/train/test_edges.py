"""What seldom happens in a training: no number where there should be one, a batch that is not full, a best that is
gone, a request that fails.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lmplay.runs import RunWriter, read_run_file, read_status, request
from lmplay.train import control, headway
from lmplay.train.config import Limits, TrainConfig
from lmplay.train.course import Course, Stage
from lmplay.train.loop import Trainer
from lmplay.train.orders import StopTraining
from lmplay.train.update.memory import OutOfMemory
from lmplay.train.validate import Validation
from lmplay.train.worker import build_trainer


@pytest.fixture
def trainer(new_run: Callable[..., Path], small_plan: Callable[..., Path]) -> Iterator[Trainer]:
    """Of a run of ten batches and a half, before its first step, in this process."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    run = new_run("here", plan=small_plan(samples=42), sets=("train.sequence_length=8",))
    with RunWriter(run) as writer:
        yield build_trainer(run, read_run_file(run), writer)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def outcomes(trainer: Trainer) -> list[tuple[str, str]]:
    found = [json.loads(line) for line in (trainer.log.path / "events.jsonl").read_text().splitlines()]
    return [(event["event"], event.get("reason", "")) for event in found if event["event"] in ("refused", "done")]


def test_a_loss_that_is_no_number_is_never_the_best_and_a_best_that_is_gone_is_forgotten(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, checkpoints = trainer.course.progress, trainer.checkpoints
    for step, loss in ((1, math.nan), (2, 3.0), (3, math.nan), (4, 3.5)):
        progress.step = step
        monkeypatch.setattr(trainer.evaluation, "loss", lambda *_, loss=loss, **__: Validation(loss, 0.0, 1))
        trainer.validate()
    trainer.save()
    trainer.keeper.settle()
    assert (progress.best_step, progress.best_validation_loss) == (2, 3.0)
    assert (checkpoints / "best").readlink() == Path("2")

    # Pruned by the course that a run went back from, or deleted by someone: the next best one must not be held to it.
    trainer.restore(checkpoints / "4")
    assert trainer.course.progress.best_step == 2
    shutil.rmtree(checkpoints / "2")
    trainer.restore(checkpoints / "4")
    assert (trainer.course.progress.best_step, trainer.course.progress.best_validation_loss) == (None, None)


def test_a_validation_says_how_far_it_is_and_nothing_of_that_is_left_behind(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headway, "TELL_SECONDS", 0.0)
    path, seen = trainer.log.path, []
    monkeypatch.setattr(trainer.evaluation.orders, "heed_stop", lambda: seen.append(read_status(path)))
    assert trainer.evaluation.data is not None
    rows = trainer.evaluation.data.num_rows
    trainer.validate()
    # What is told after a piece is seen when the next one is done.
    share = [status.activity_share for status in seen]
    assert share[0] is None
    done = range(trainer.piece_size, rows, trainer.piece_size)
    assert share[1:] == pytest.approx([count / rows for count in done])
    assert seen[-1].activity.startswith(f"validating {seen[-1].fields['activity_done']}/{rows}")
    after = read_status(path)
    assert after.activity == ""
    assert "activity_done" not in after.fields


def test_trouble_in_the_last_batch_which_is_not_full_is_looked_into(trainer: Trainer) -> None:
    assert [trainer._batch_of([0, first]).samples for first in (36, 40)] == [4, 2]


def test_a_request_that_fails_or_meets_a_full_disk_is_answered_and_a_paused_run_stays_paused(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, obey = trainer.log.path, trainer.orders.obey

    def no_memory(*_: Any, **__: Any) -> None:
        raise OutOfMemory("no room for the logits")

    monkeypatch.setattr(trainer.evaluation, "loss", no_memory)
    request(run, "validate")
    with pytest.raises(OutOfMemory):
        obey(trainer)
    assert outcomes(trainer) == [("refused", "no room for the logits")]

    really_event, states, full = RunWriter.event, [], True

    def event(self: RunWriter, kind: str, **fields: Any) -> None:
        nonlocal full
        if kind == "done" and fields["action"] == "checkpoint" and full:
            full = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really_event(self, kind, **fields)

    def look(_: float) -> None:
        states.append(read_status(run).state)
        if len(states) == 1:
            request(run, "checkpoint")
        elif len(states) == 4:  # one look was that of the wait for the disk
            request(run, "resume")

    monkeypatch.setattr(RunWriter, "event", event)
    monkeypatch.setattr(control.time, "sleep", look)
    request(run, "pause")
    obey(trainer)
    assert not full
    assert set(states) == {"paused"}
    assert read_status(run).state == "running"


def test_the_end_of_a_run_is_foreseen_over_its_stages_and_within_its_limits() -> None:
    def course(**limits: int) -> Course:
        stages = [
            Stage(name, TrainConfig(batch_size=size), SimpleNamespace(num_rows=rows))  # type: ignore[arg-type]
            for name, size, rows in (("a", 4, 42), ("b", 8, 40))
        ]
        return Course(stages, Limits(**limits))

    assert course().total_steps() == 11 + 5
    assert [course(steps=steps).total_steps() for steps in (5, 11, 13, 99)] == [5, 11, 13, 16]
    assert [course(samples=samples).total_steps() for samples in (20, 42, 50, 51)] == [5, 11, 12, 13]
    begun = course(tokens=500)
    begun.progress.advance(samples=4, tokens=40)
    assert begun.total_steps() == 12, "500 tokens are 50 samples"


def test_a_piece_that_had_no_room_is_let_go_before_a_smaller_one_is_tried(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    tries: list[bool] = []

    def too_large(_: Any) -> None:
        activations = torch.zeros(1000)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("no room")

    def choose() -> None:
        tries.append(any(tensor() is not None for tensor in held))
        if held:
            raise StopTraining("seen enough", alone=True)

    trainer.course.progress.validation_due = False
    monkeypatch.setattr(trainer.step.objective, "forward", too_large)
    monkeypatch.setattr(trainer, "_choose_pieces", choose)
    with pytest.raises(StopTraining):
        trainer.train()
    assert (len(held), tries) == (1, [False, False])
