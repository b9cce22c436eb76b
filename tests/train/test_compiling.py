"""Blocks compiled in place: the same results, and a checkpoint that knows nothing of it. Scaled fp16 beside it."""

from __future__ import annotations

import copy

import pytest
import torch

from lmplay.base.model_files import load_model, save_model
from lmplay.base.runner_list import get_runner
from lmplay.train.config import TrainConfig
from lmplay.train.feed import DeviceBatch, Piece
from lmplay.train.update.compiling import compile_blocks, repeated_blocks, uncompiled
from lmplay.train.update.optimizers import build_optimizer
from lmplay.train.update.step import TrainStep

CPU = torch.device("cpu")
NO_DROPOUT = {"attn_dropout": 0.0, "ff_dropout": 0.0, "embed_dropout": 0.0}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return get_runner("test_runner").build_model(max_len=16, embed_dim=16, **NO_DROPOUT).train()


def batch() -> DeviceBatch:
    tokens = torch.randint(0, 50257, (2, 17), generator=torch.Generator().manual_seed(1))
    piece = Piece(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), None, 32)
    return DeviceBatch(pieces=(piece,), samples=2, num_targets=32, first_row=0)


def train_step(model, **settings) -> TrainStep:
    config = TrainConfig(batch_size=2, mini_batch_size=2, **settings)
    return TrainStep(model, build_optimizer(model, config, CPU), config, CPU)


def test_compiled_blocks_train_alike_and_their_checkpoint_is_that_of_an_uncompiled_model(model, tmp_path):
    plain = copy.deepcopy(model)
    names = list(model.state_dict())
    assert compile_blocks(model, backend="aot_eager") == len(repeated_blocks(model)) == 2
    assert list(model.state_dict()) == names
    assert all(block._compiled_call_impl is not None for block in model.blocks)
    compiled_step, plain_step = train_step(model), train_step(plain)
    for _ in range(2):
        ours, theirs = compiled_step(batch(), 1e-2), plain_step(batch(), 1e-2)
        torch.testing.assert_close(ours.loss, theirs.loss)
        torch.testing.assert_close(ours.grad_norm, theirs.grad_norm)
    save_model(model, tmp_path / "saved", experiment="test_runner")
    loaded = load_model(tmp_path / "saved")
    assert all(block._compiled_call_impl is None for block in loaded.blocks)
    tokens = batch().pieces[0].tokens
    with torch.no_grad(), uncompiled():
        torch.testing.assert_close(loaded.eval()(tokens), model.eval()(tokens))


def test_a_block_with_dropout_compiles_in_one_piece():
    from torch._dynamo.utils import counters

    model = get_runner("test_runner").build_model(max_len=16, embed_dim=16).train()
    counters.clear()
    compile_blocks(model, backend="aot_eager")
    model(batch().pieces[0].tokens).sum().backward()
    assert not counters["graph_break"]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_fp16_skips_a_step_that_overflows_and_lowers_its_scale(model):
    step = train_step(model, precision="fp16")
    weights = [p.detach().clone() for p in model.parameters()]
    before = step.scaler.get_scale()
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 3e38})
    result = step(batch(), 1e-2)
    assert not result.finite
    assert result.figures["loss_scale"] == pytest.approx(3e38), "the one that was too large"
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), weights, strict=True))
    assert step.scaler.get_scale() < 3e38
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": before})
    good = step(batch(), 1e-2)
    assert good.finite
    reference = train_step(copy.deepcopy(model))(batch(), 1e-2)
    assert good.loss.item() == pytest.approx(reference.loss.item(), rel=0.05)
