"""The measurements are what they are called, and taking them changes nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from lmplay.base.runner_list import get_runner
from lmplay.data import Batch
from lmplay.train.config import TrainConfig
from lmplay.train.feed import DeviceBatch, to_device
from lmplay.train.keep.progress import NoiseStatistics
from lmplay.train.update.diagnostics import NOISE, SIGNAL, Diagnostics, block_of, noise_scale
from lmplay.train.update.optimizers import build_optimizer
from lmplay.train.update.step import TrainStep

CPU = torch.device("cpu")


def make_step() -> tuple[TrainStep, DeviceBatch]:
    torch.manual_seed(0)
    model = get_runner("test_runner").build_model(max_len=8, embed_dim=8).train()
    config = TrainConfig(batch_size=6, mini_batch_size=2)
    generator = np.random.default_rng(0)
    tokens, targets = generator.integers(0, 50257, (2, 6, 8))
    targets[0, 2:] = -100
    batch = to_device(Batch(tokens=tokens, targets=targets, documents=None), first_row=0, piece_size=2, device=CPU)
    return TrainStep(model, build_optimizer(model, config, CPU), config, CPU), batch


def test_a_step_that_is_measured_is_the_same_step() -> None:
    plain, measured = make_step(), make_step()
    for step, batch in (plain, measured):
        torch.manual_seed(1)
        step(batch, 1e-3, watch=Diagnostics(step.model) if step is measured[0] else None)
    for a, b in zip(plain[0].model.parameters(), measured[0].model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_update_ratios_are_distances_over_lengths_of_each_block() -> None:
    step, batch = make_step()
    before = copy.deepcopy(step.model.blocks[1].state_dict())
    figures = step(batch, 1e-3, watch=Diagnostics(step.model)).figures
    after = step.model.blocks[1].state_dict()
    distance = sum(float((after[name] - before[name]).square().sum()) for name in before) ** 0.5
    length = sum(float(before[name].square().sum()) for name in before) ** 0.5
    assert float(figures["update_ratio.blocks.1"]) == pytest.approx(distance / length, rel=1e-4)
    blocks = {name.removeprefix("update_ratio.") for name in figures if name.startswith("update_ratio.")}
    assert blocks == {"tok_embed", "pos_embed", "ln", "fc", *(f"blocks.{i}" for i in range(len(step.model.blocks)))}


def test_fp16_measures_the_noise_of_the_gradient_and_not_of_its_multiple() -> None:
    found = {}
    for precision in ("float32", "fp16"):
        step, batch = make_step()
        config = step.config.model_copy(update={"precision": precision})
        step = TrainStep(step.model, step.optimizer, config, CPU)
        torch.manual_seed(1)
        found[precision] = float(step(batch, 1e-3, watch=Diagnostics(step.model)).figures[NOISE])
    assert found["fp16"] == pytest.approx(found["float32"], rel=0.2)


def test_a_step_without_a_finite_gradient_leaves_the_noise_scale_as_it_is() -> None:
    statistics = NoiseStatistics()
    assert noise_scale(statistics, 10.0, 1.0) == 10
    assert noise_scale(statistics, float("nan"), float("nan")) is None
    assert noise_scale(statistics, 10.0, 1.0) == pytest.approx(10)


def test_block_of_names_the_outermost_numbered_module() -> None:
    assert block_of("blocks.3.attn.qkv.weight") == "blocks.3"
    assert block_of("net.layers.0.moe.experts.5.up") == "net.layers.0"
    assert block_of("tok_embed.weight") == "tok_embed"


def test_the_noise_scale_finds_signal_and_noise_that_were_put_in() -> None:
    """Gradients G + noise / sqrt(tokens), with |G|^2 = 4 and a trace of the covariance of 300: a scale of 75."""
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.zeros(100))
    model = torch.nn.Module()
    model.weight = parameter
    direction = torch.full((100,), 0.2)
    statistics, scale = NoiseStatistics(), None
    sizes = (10, 20, 30, 40)
    for _ in range(400):
        watch = Diagnostics(model)
        parameter.grad = torch.zeros(100)
        for tokens in sizes:
            piece = direction + torch.randn(100) * (3.0 / tokens) ** 0.5
            parameter.grad += piece * tokens / sum(sizes)
            watch.after_piece(tokens, sum(sizes))
        figures = watch.after_update(parameter.grad.norm(), sum(sizes))
        scale = noise_scale(statistics, float(figures[NOISE]), float(figures[SIGNAL]))
    assert statistics.noise == pytest.approx(300, rel=0.15)
    assert statistics.signal == pytest.approx(4, rel=0.15)
    assert scale == pytest.approx(75, rel=0.2)
