"""Which arithmetic a command gets: what `--amp` means here, what is refused, and what `--force` insists on."""

from __future__ import annotations

from typing import Any

import pytest

from lmplay.cli.launch import Asked, prepare
from lmplay.train import device
from lmplay.utils.errors import WrongUsageError


def precision(**asked: Any) -> str:
    prepared = prepare(Asked(experiment="test_runner", plan="quickstart", device="cpu", **asked))
    return prepared.stage_configs()[0].precision


def test_amp_on_a_cpu_with_units_for_it_is_bf16_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bf16_units", lambda: True)
    assert precision() == "float32"
    assert precision(amp=True) == "bf16"
    assert precision(amp=True, train={"precision": "float32"}) == "float32"


def test_bf16_on_a_cpu_without_units_for_it_asks_for_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bf16_units", lambda: False)
    for asked in ({"amp": True}, {"train": {"precision": "bf16"}}, {"sets": ("train.precision=bf16",)}):
        with pytest.raises(WrongUsageError, match=r"many times slower.*--force"):
            precision(**asked)
        assert precision(**asked, force=True) == "bf16"


def test_arithmetic_that_makes_no_sense_on_a_cpu_is_refused() -> None:
    with pytest.raises(WrongUsageError, match="tf32 is an arithmetic of CUDA"):
        precision(train={"precision": "tf32"}, force=True)
    with pytest.raises(WrongUsageError, match=r"fp16 on a CPU.*--force"):
        precision(train={"precision": "fp16"})
    assert precision(train={"precision": "fp16"}, force=True) == "fp16"
