"""Which checkpoints a policy gives up."""

from __future__ import annotations

from typing import Any

from lmplay.train.config import TrainConfig
from lmplay.train.keep.checkpoint import About
from lmplay.train.keep.retention import next_to_give_up, superfluous


def saved(*steps: int, milestones: tuple[int, ...] = (), ends: tuple[int, ...] = ()) -> list[About]:
    return [
        About(step=s, samples=s, tokens=s, stage="a", milestone=s in milestones, stage_end=s in ends) for s in steps
    ]


def config(**settings: Any) -> TrainConfig:
    return TrainConfig.model_validate(settings)


def test_the_newest_stay_and_what_is_protected() -> None:
    assert superfluous(saved(3, 1, 2, 4), config(keep_checkpoints=2), protected={1}) == [2]
    assert superfluous(saved(1, 2, 3), config(keep_checkpoints=0), protected=()) == []


def test_milestones_and_ends_of_stages_stay_unless_the_latter_are_not_wanted() -> None:
    found = saved(1, 2, 3, 4, milestones=(1,), ends=(2,))
    assert superfluous(found, config(keep_checkpoints=1), protected=()) == [3]
    assert superfluous(found, config(keep_checkpoints=1, keep_stage_ends=False), protected=()) == [2, 3]


def test_a_short_disk_takes_plain_ones_before_special_ones_and_never_the_protected() -> None:
    found = saved(1, 2, 3, 4, 5, milestones=(1,))
    given_up = []
    while (step := next_to_give_up(found, config(), protected={3, 5})) is not None:
        given_up.append(step)
        found = [about for about in found if about.step != step]
    assert given_up == [2, 4, 1]
