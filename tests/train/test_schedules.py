"""Each schedule equals its closed form, and torch's own where torch has it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmplay.train.config import TrainConfig
from lmplay.train.update.schedules import factor, learning_rate


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"lr": 1.0, "warmup_steps": 10, **changes})


def test_warmup_is_linear_and_its_first_update_is_not_lost() -> None:
    rates = [learning_rate(config(lr=2e-3), step, 100) for step in range(12)]
    assert rates[:10] == pytest.approx([2e-3 * (step + 1) / 10 for step in range(10)])
    assert rates[10:] == [2e-3, 2e-3]


def test_cosine_equals_torchs_annealing() -> None:
    ours = config(schedule="cosine", warmup_steps=0, min_lr_ratio=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=49, eta_min=0.1)
    for step in range(50):
        assert factor(ours, step, 50) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_linear_ends_at_its_floor() -> None:
    ours = config(schedule="linear", warmup_steps=0, min_lr_ratio=0.25)
    assert [factor(ours, step, 4) for step in range(4)] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_wsd_is_flat_then_falls_over_its_share() -> None:
    ours = config(schedule="wsd", decay_share=0.5, min_lr_ratio=0.0)
    factors = [factor(ours, step, 100) for step in range(100)]
    assert factors[10:51] == [1.0] * 41
    assert factors[51:] == pytest.approx([1 - (step - 50) / 49 for step in range(51, 100)])
    assert factors[-1] == 0.0


def test_inverse_square_root_meets_the_warmup_and_falls_as_stated() -> None:
    ours = config(schedule="inverse_sqrt")
    assert factor(ours, 9, None) == 1.0
    assert factor(ours, 39, None) == pytest.approx(math.sqrt(10 / 40))


@given(
    schedule=st.sampled_from(["constant", "linear", "cosine", "wsd", "inverse_sqrt"]),
    warmup=st.integers(0, 50),
    total=st.one_of(st.none(), st.integers(1, 200)),
    step=st.integers(0, 400),
)
def test_factor_is_a_share_wherever_it_is_asked(schedule: str, warmup: int, total: int | None, step: int) -> None:
    assert 0.0 <= factor(config(schedule=schedule, warmup_steps=warmup), step, total) <= 1.0
