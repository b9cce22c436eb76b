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
                "initial values come from somewhere else than torch's generator: random, numpy, the time",
            )
    losses_and_gradients = [one_step(model, subject) for model in (subject.fresh(), second)]
    for name, gradient in losses_and_gradients[0].items():
        difference = largest(gradient, losses_and_gradients[1][name])
        if difference:
            return failed(
                f"the same step twice differs in {name} by {difference:.2g}",
                "randomness that torch's seed does not govern, state that a pass leaves behind, or a kernel that adds "
                "in changing order",
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
    with torch.no_grad(), mode(model, training=False):
        difference = largest(model(subject.batch.tokens), loaded(subject.batch.tokens))
    if difference:
        return failed(
            f"after saving and loading, logits differ by {difference:.2g}",
            "something that matters is neither a parameter nor a buffer that is saved: register it with "
            "register_buffer, or derive it from the constructor's arguments",
        )
    return passed("two models of one seed: equal weights, loss and gradients; a saved and loaded one: equal logits")


def check_eval_mode(subject: Subject) -> CheckResult:
    """In eval mode dropout is off: two passes agree bit by bit."""
    model, tokens = subject.spread, subject.batch.tokens
    with torch.no_grad(), mode(model, training=False):
        awake = [name for name, module in model.named_modules() if module.training]
        with seeded(subject.seed, subject.device):
            first = model(tokens)
        with seeded(subject.seed + 1, subject.device):
            second = model(tokens)
    difference = largest(first, second)
    if awake:
        return failed(
            f"still in training mode after eval(): {', '.join(name or 'the model' for name in awake[:6])}",
            "train() is overridden, or a module sets self.training itself",
        )
    if difference:
        return failed(
            f"two passes in eval mode differ by {difference:.2g}",
            "dropout that is always on, as F.dropout(x, p) without training=self.training; or state that a pass leaves "
            "behind",
        )
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    return passed(f"two passes agree bit by bit; {len(layers)} dropout layers are off")
