"""What counts as a spike, and what the guard does with figures that are none."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lmplay.train.config import Limits, TrainConfig
from lmplay.train.course import Course, Stage
from lmplay.train.guard import NotFiniteError, StepGuard


class Rows:
    num_rows = 10_000


class Events:
    def __init__(self) -> None:
        self.kinds: list[tuple[str, dict[str, Any]]] = []

    def event(self, kind: str, **fields: Any) -> None:
        self.kinds.append((kind, fields))


def guard(**settings: Any) -> tuple[StepGuard, Events, Course]:
    events = Events()
    course = Course([Stage("learn", TrainConfig.model_validate(settings), Rows())], Limits())  # type: ignore[arg-type]
    return StepGuard(events, course), events, course  # type: ignore[arg-type]


def losses(count: int) -> list[float]:
    """Falling, with a ripple: what a training looks like."""
    return [10 * math.exp(-step / 100) + 2 + 0.1 * math.sin(step) for step in range(count)]


def test_a_spike_is_marked_with_what_was_expected_and_where_its_batch_lies() -> None:
    judge, events, _ = guard()
    for step, loss in enumerate(losses(300)):
        judge.judge({"step": step, "loss": loss + (3.0 if step == 200 else 0.0)}, first_row=4 * step)
    assert [(kind, fields["step"], fields["row"]) for kind, fields in events.kinds] == [("loss_spike", 200, 800)]
    assert events.kinds[0][1]["expected"] == pytest.approx(losses(300)[200], abs=1.0)


def test_no_spike_is_seen_in_a_training_that_falls_and_ripples_or_when_told_not_to_look() -> None:
    judge, events, _ = guard()
    for step, loss in enumerate(losses(2000)):
        judge.judge({"step": step, "loss": loss}, first_row=0)
    assert events.kinds == []
    judge, events, _ = guard(spike_sigmas=0)
    for step, loss in enumerate([*losses(100), 1000.0]):
        judge.judge({"step": step, "loss": loss}, first_row=0)
    assert events.kinds == []


def test_skipped_steps_are_counted_and_only_a_row_of_them_is_trouble() -> None:
    judge, _, course = guard(max_bad_steps=3)
    bad, good = {"loss": math.nan, "skipped": True}, {"loss": 3.0}
    for step, row in enumerate([bad, bad, good, bad, bad]):
        judge.judge({"step": step, **row}, first_row=step)
    with pytest.raises(NotFiniteError) as trouble:
        judge.judge({"step": 5, **bad}, first_row=5)
    assert trouble.value.first_step == 3
    assert course.progress.skipped_steps == 5
    assert course.progress.bad_streak == [[0, 3], [0, 4], [0, 5]]


def test_overflow_under_fp16_is_the_scalers_business_but_a_loss_that_is_nan_is_not() -> None:
    judge, _, course = guard(max_bad_steps=1, precision="fp16")
    judge.judge({"step": 1, "loss": 3.0, "skipped": True, "loss_scale": 65536.0}, first_row=0)
    assert course.progress.skipped_steps == 1
    with pytest.raises(NotFiniteError):
        judge.judge({"step": 2, "loss": math.nan, "skipped": True, "loss_scale": 65536.0}, first_row=4)
    with pytest.raises(NotFiniteError):  # no factor makes this gradient too large: it is not finite by itself
        judge.judge({"step": 3, "loss": 3.0, "skipped": True, "loss_scale": 1.0}, first_row=8)
