"""Is the result a function of seed and input? Same bits twice, in training, in eval mode, and after a round trip."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import load_model, save_model
from lmplay.checks.difference import largest
from lmplay.checks.result import CheckResult, failed, passed
from lmplay.checks.subject import Subject, losses, mode, seeded
from lmplay.utils.errors import LMPlayError


def check_determinism(subject: Subject) -> CheckResult:
    """The same seed gives the same weights, loss and gradients bit by bit; a loaded model the same logits."""
    second = subject.build()
    for (name, one), other in zip(subject.model.state_dict().items(), second.state_dict().values(), strict=True):
        if not torch.equal(one.nan_to_num(), other.nan_to_num()):
            return failed(
                f"two models of the same seed differ in {name}",
                "initial values come from no generator that is seeded: the time, the system, a generator of its own",
            )
    losses_and_gradients = [one_step(model, subject) for model in (subject.fresh(), second)]
    for name, gradient in losses_and_gradients[0].items():
        difference = largest(gradient.nan_to_num(), losses_and_gradients[1][name].nan_to_num())
        if difference:
            return failed(
                f"the same step twice differs in {name} by {difference:.2g}",
                "randomness that the seed does not govern, state that a pass leaves behind, or a kernel that adds in "
                "changing order",
            )
    return round_trip(subject)


def one_step(model: LMBase, subject: Subject) -> dict[str, torch.Tensor]:
    with seeded(subject.seed, subject.device), mode(model, training=True):
        total = torch.stack(list(losses(model, subject.batch).values())).sum()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
    gradients = {f"the gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"the loss": total.detach(), **gradients}


def round_trip(subject: Subject) -> CheckResult:
    model = subject.spread
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_model(model, Path(folder), experiment=subject.runner.name)
            loaded = load_model(Path(folder), device=subject.device)
        except LMPlayError as error:
            return failed(
                f"a saved model cannot be loaded: {error}",
                "the arguments of the constructor must rebuild the model, and its class must be importable by name",
            )
    logits = []
    for one in (model, loaded):
        # Dropout that is never off is eval_mode's to tell.
        with torch.no_grad(), mode(one, training=False), seeded(subject.seed, subject.device):
            logits.append(one(subject.batch.tokens).nan_to_num())
    if difference := largest(*logits):
        return failed(
            f"after saving and loading, logits differ by {difference:.2g}",
            "something that matters is neither a parameter nor a buffer that is saved: register it with "
            "register_buffer, or derive it from the constructor's arguments",
        )
    return passed("two models of one seed: equal weights, loss and gradients; a saved and loaded one: equal logits")


def check_eval_mode(subject: Subject) -> CheckResult:
    """In eval mode dropout is off: two passes agree bit by bit. No pass changes the mode."""
    model = subject.spread
    with mode(model, training=False):
        awake = [name for name, module in model.named_modules() if module.training]
    with torch.no_grad(), mode(model, training=True), seeded(subject.seed, subject.device):
        before = [name for name, module in model.named_modules() if module.training]
        model(subject.batch.tokens)
        lost = [name for name in before if not model.get_submodule(name).training]
    difference = difference_of_passes(subject)
    if awake:
        return failed(
            f"still in training mode after eval(): {', '.join(name or 'the model' for name in awake[:6])}",
            "train() is overridden, or a module sets self.training itself",
        )
    if lost:
        return failed(
            f"a pass in training mode leaves in eval mode: {', '.join(name or 'the model' for name in lost[:6])}",
            "forward() calls eval() or sets training, and dropout is off from the first step on; whoever calls decides",
        )
    if difference:
        return failed(
            f"two passes in eval mode differ by {difference:.2g}",
            "dropout that is always on, as F.dropout(x, p) without training=self.training; or state that a pass leaves "
            "behind",
        )
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    return passed(f"two passes agree bit by bit; {len(layers)} dropout layers are off")


def difference_of_passes(subject: Subject) -> float:
    """How far the logits of two passes in eval mode are apart, each with random numbers of its own."""
    return largest(*(logits.nan_to_num() for logits in two_passes(subject)))


def why_incomparable(subject: Subject) -> str | None:
    """Why no two passes of this model can be held against each other, whatever differs between them."""
    first, second = two_passes(subject)
    if not torch.isfinite(first).all():
        return "the logits are not all finite numbers, so nothing equals them: see the check initial_loss"
    if not torch.equal(first, second):
        return "equal passes in eval mode differ already: see the check eval_mode"
    return None


def two_passes(subject: Subject) -> list[torch.Tensor]:
    model, logits = subject.spread, []
    for seed in (subject.seed, subject.seed + 1):
        with torch.no_grad(), mode(model, training=False), seeded(seed, subject.device):
            logits.append(model(subject.batch.tokens))
    return logits
