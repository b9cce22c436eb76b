"""`lmp_trainer --check-grads`: one real step on real text, and which parameters it reached."""

from __future__ import annotations

from dataclasses import dataclass

from lmplay.base.base_runner import LMRunnerBase
from lmplay.data import open_stage
from lmplay.plans import Plan
from lmplay.train.device import choose_device
from lmplay.train.feed import to_device
from lmplay.train.keep.randomness import seed_everything
from lmplay.train.request import RunRequest
from lmplay.train.update.optimizers import apply_freezing, build_optimizer
from lmplay.train.update.step import TrainStep
from lmplay.train.worker import build_model, length_of, stage_configs

Named = list[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class GradientReport:
    """Names and shapes of the parameters that one step left without a gradient, and how many got one."""

    without: Named
    frozen: Named
    trained: int


def gradients_of_one_step(request: RunRequest, plan: Plan, runner: LMRunnerBase) -> GradientReport:
    """Make the first update of the plan's first stage, on one piece of the batch. No run directory is touched."""
    device = choose_device(request.device)
    seed_everything(request.seed)
    model = build_model(runner, request).to(device).train()
    config = stage_configs(request, runner, plan, model.max_len)[0]
    data = open_stage(plan, 0, sequence_length=length_of(config), seed=request.seed)
    apply_freezing(model, config.freeze)
    step = TrainStep(model, build_optimizer(model, config, device), config, device)
    piece = config.mini_batch_size if config.mini_batch_size != "auto" else 1
    rows = data.rows(0, min(piece, data.num_rows))
    step(to_device(rows, first_row=0, piece_size=piece, device=device), config.lr)
    named = [(name, tuple(parameter.shape), parameter) for name, parameter in model.named_parameters()]
    return GradientReport(
        without=[(name, shape) for name, shape, p in named if p.requires_grad and not _reached(p.grad)],
        frozen=[(name, shape) for name, shape, p in named if not p.requires_grad],
        trained=sum(1 for _, _, p in named if p.requires_grad and _reached(p.grad)),
    )


def _reached(grad: object) -> bool:
    return grad is not None and bool((grad != 0).any())  # type: ignore[attr-defined]
