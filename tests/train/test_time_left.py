"""The time that a run still takes: nothing in it jumps because a validation or a checkpoint came in between."""

from __future__ import annotations

from typing import Any

import pytest

from lmplay.train.config import Limits, TrainConfig
from lmplay.train.course import Course, Stage
from lmplay.train.headway import Headway
from lmplay.train.time_left import TimeLeft


class Rows:
    num_rows = 1000


def test_validations_and_checkpoints_are_counted_apart_from_steps() -> None:
    config = TrainConfig(batch_size=10, validation_interval=250, save_interval=400)
    rows: Any = Rows()
    course = Course([Stage("learn", config, rows)], Limits())
    left = TimeLeft()
    left.activity_took("validating", 30.0)  # before the first step
    assert left.seconds(course) is None
    told = []
    for step in range(1, 101):
        left.step_took(9.0 if step == 1 else 0.1, stage=0)  # the first one compiles
        course.progress.advance(samples=10, tokens=100)
        if step % 25 == 0:
            left.activity_took("validating", 30.0)
            course.progress.validated_step = step
        if step == 40:
            left.activity_took("saving", 2.0)
        told.append(left.seconds(course))
    assert told[9] == pytest.approx(90 * 0.1 + 4 * 30)  # after 250, 500, 750 and 1000 samples
    assert told[24] == pytest.approx(75 * 0.1 + 3 * 30)
    assert told[59] == pytest.approx(40 * 0.1 + 2 * 30 + 2 * 2)  # saved after 800 samples, and at the end
    assert told[98] == pytest.approx(0.1 + 30 + 2)
    assert told[99] == pytest.approx(2)  # nothing left but to save what has been validated


def test_a_stage_of_slower_steps_is_not_judged_by_the_one_before() -> None:
    config = TrainConfig(batch_size=10, validation_interval=5_000, save_interval=5_000)
    rows: Any = Rows()
    course = Course([Stage("short", config, rows), Stage("long", config, rows)], Limits())
    left = TimeLeft()
    for _ in range(100):
        left.step_took(0.1, stage=0)
        course.progress.advance(samples=10, tokens=100)
    assert left.seconds(course) == pytest.approx(100 * 0.1)
    course.next_stage()
    left.step_took(1.0, stage=1)
    course.progress.advance(samples=10, tokens=100)
    assert left.seconds(course) == pytest.approx(99)


def test_how_far_a_validation_is_is_told_once_a_second_and_reckons_from_where_it_began() -> None:
    now = 100.0
    headway = Headway(10, clock=lambda: now)
    assert headway.news(11, 40) is None
    now = 102.0
    assert headway.news(20, 40) == {"activity_done": 20, "activity_total": 40, "activity_seconds_left": 4.0}
    now = 102.5
    assert headway.news(25, 40) is None
    now = 104.0
    assert headway.news(25, None) == {"activity_done": 25, "activity_total": None, "activity_seconds_left": None}
