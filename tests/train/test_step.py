"""One update: it never waits for the device, and a gradient that is not finite leaves no trace in any rule's state."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lmplay.base.base_model import LMBase
from lmplay.base.runner_list import get_runner
from lmplay.data import Batch
from lmplay.runs import RunWriter, read_run_file
from lmplay.train import report
from lmplay.train.config import TrainConfig
from lmplay.train.feed import DeviceBatch, to_device
from lmplay.train.update.clipping import clipped_step, gradient_norm
from lmplay.train.update.optimizers import OPTIMIZERS, build_optimizer
from lmplay.train.update.step import TrainStep
from lmplay.train.worker import build_trainer

CPU = torch.device("cpu")
# Operations whose result the host must have before it can go on, in the names of the dispatcher.
WAITING = ("_local_scalar_dense", "is_nonzero", "item", "equal", "nonzero", "masked_select", "unique", "_unique2")


class NoWaiting(TorchDispatchMode):
    """Refuses every operation that brings a value from the device to the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITING, f"{name} waits for the device"
        if name == "index":
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "a boolean index waits for the device"
        return func(*args, **(kwargs or {}))


def model() -> LMBase:
    torch.manual_seed(0)
    return get_runner("test_runner").build_model(max_len=8, embed_dim=8).train()


def batch(*, documents: bool = False) -> DeviceBatch:
    generator = np.random.default_rng(0)
    tokens, targets = generator.integers(0, 50257, (2, 4, 8))
    targets[0, 3:] = -100
    borders = np.repeat(np.array([[0, 0, 0, 1, 1, 1, 1, 1]], dtype=np.int32), 4, axis=0) if documents else None
    return to_device(Batch(tokens=tokens, targets=targets, documents=borders), first_row=0, piece_size=3, device=CPU)


def make_step(*, dtype: torch.dtype = torch.float32, **settings: Any) -> TrainStep:
    each = model().to(dtype)
    config = TrainConfig.model_validate({"batch_size": 4, "mini_batch_size": 3, **settings})
    return TrainStep(each, build_optimizer(each, config, CPU), config, CPU)


def test_the_mode_that_forbids_waiting_notices_it() -> None:
    for waits in (lambda t: t.item(), bool, float, lambda t: t[t > 0], lambda t: t.nonzero()):
        with pytest.raises(AssertionError, match="waits"), NoWaiting():
            waits(torch.ones(()) if waits in (bool, float) else torch.ones(1))


OTHERWISE = [{"loss": "plain"}, {"precision": "bf16"}, {"precision": "fp16"}]


@pytest.mark.parametrize("settings", [{"optimizer": name} for name in sorted(OPTIMIZERS)] + OTHERWISE)
def test_nothing_in_the_step_waits_for_the_device(settings: dict[str, Any]) -> None:
    step, given = make_step(**settings), batch(documents=True)
    step(given, 1e-3)
    with NoWaiting():
        result = step(given, 1e-3)
    assert bool(result.finite)


def test_between_two_readings_of_the_log_the_whole_loop_waits_for_nothing(
    new_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feeding, measuring, averaging and reporting too, as they are on an accelerator."""
    monkeypatch.setattr(report, "READ_SECONDS", float("inf"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    run = new_run("flows", sets=("train.ema=0.9", "train.diagnostics_interval=4", "train.grad_clip=0.1"))
    with RunWriter(run) as writer:
        trainer = build_trainer(run, read_run_file(run), writer)
        trainer.report._at_once = False
        coming = trainer._batches()
        with NoWaiting():
            for _ in range(3):
                trainer._train_on(next(coming))
        trainer.report.flush()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["update_ratio.blocks.0"] > 0 for row in rows)


def tensors_of(step: TrainStep) -> list[torch.Tensor]:
    state = step.optimizer.state_dict()
    parts = state.get("parts", [state])
    held = [value for part in parts for entry in part["state"].values() for value in entry.values()]
    return [tensor.clone() for tensor in [*step.model.parameters(), *held] if isinstance(tensor, torch.Tensor)]


def skip(step: TrainStep) -> None:
    clipped_step(step.optimizer, grad_norm=torch.tensor(torch.nan), largest=1.0, finite=torch.tensor(False))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_gradient_that_is_not_finite_leaves_weights_and_state_as_they_were(name: str) -> None:
    step, given = make_step(optimizer=name, grad_clip=0.0), batch()
    step(given, 1e-3)
    before = tensors_of(step)
    step.accumulate(given)
    step.trained[2].grad[0] = torch.nan
    skip(step)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(step), strict=True))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_first_step_that_was_skipped_is_as_if_it_had_not_been(name: str) -> None:
    skipped, fresh = make_step(optimizer=name), make_step(optimizer=name)
    skipped.accumulate(batch())
    skipped.trained[0].grad.fill_(torch.inf)
    skip(skipped)
    for each in (skipped, fresh):
        torch.manual_seed(5)
        each(batch(), 1e-3)
    for a, b in zip(tensors_of(skipped), tensors_of(fresh), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_is_skipped_and_told() -> None:
    step, given = make_step(), batch()
    before = copy.deepcopy(step.model.state_dict())
    with torch.no_grad():
        step.model.ln.bias[0] = torch.inf
    result = step(given, 1e-3)
    assert not bool(result.finite)
    assert torch.equal(step.model.tok_embed.weight, before["tok_embed.weight"])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_autocast_on_the_cpu_trains(precision: str) -> None:
    step = make_step(precision=precision)
    losses = [float(step(batch(), 3e-3).loss) for _ in range(8)]
    assert losses[-1] < losses[0] - 0.1
    assert all(parameter.dtype == torch.float32 for parameter in step.model.parameters())


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clipping_limits_the_norm_and_tells_what_it_was(name: str, dtype: torch.dtype) -> None:
    step = make_step(optimizer=name, grad_clip=0.01, dtype=dtype)
    norm = step(batch(), 1e-3).grad_norm
    assert norm > 0.01
    clipped = torch.nn.utils.get_total_norm([p.grad for p in step.trained])
    torch.testing.assert_close(clipped, torch.tensor(0.01, dtype=dtype), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["adamw", "adam", "adagrad"])
def test_a_fused_optimizer_makes_the_step_of_a_gradient_that_was_clipped_before(name: str) -> None:
    folded, before = (make_step(optimizer=name, grad_clip=clip, eps=1e-4) for clip in (0.5, 0.0))
    for turn in range(3):
        torch.manual_seed(turn)
        folded(batch(), 1e-2)
        torch.manual_seed(turn)
        before.accumulate(batch())
        torch.nn.utils.clip_grad_norm_(before.trained, 0.5)
        for group in before.optimizer.param_groups:
            group["lr"] = 1e-2
        before.optimizer.step()
    for ours, theirs in zip(folded.trained, before.trained, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_norm_of_a_gradient_is_exact_for_large_tables() -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(8000, 768), torch.randn(3, 4, 5), torch.randn(7), torch.randn(())]
    exact = torch.cat([gradient.double().flatten() for gradient in gradients]).norm()
    assert abs(gradient_norm(gradients).double() / exact - 1) < 1e-6
