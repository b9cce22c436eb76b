"""Is the result a function of seed and input? Same bits twice, in training, in eval mode, and after a round trip."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import load_model, save_model
from lmplay.checks.difference import largest
from lmplay.checks.result import CheckResult, failed, passed
from lmplay.checks.subject import Subject, generator_states, losses, mode, seeded
from lmplay.utils.errors import LMPlayError


def check_determinism(subject: Subject) -> CheckResult:
    """The same seed gives the same weights, loss and gradients bit by bit; a loaded model the same logits."""
    second = subject.build()
    for (name, one), other in zip(subject.model.state_dict().items(), second.state_dict().values(), strict=True):
        if not equal(one, other):
            if equal(other, subject.build().state_dict()[name]):
                return failed(
                    f"a forward pass has changed {name}",
                    "it writes into the model, in eval mode too: see the check eval_mode",
                )
            return failed(
                f"two models of the same seed differ in {name}",
                "initial values come from no generator that is seeded: the time, the system, a generator of its own",
            )
    losses_and_gradients = [one_step(model, subject) for model in (subject.fresh(), second)]
    for name, gradient in losses_and_gradients[0].items():
        again = losses_and_gradients[1][name]
        if not equal(gradient, again):
            difference = largest(gradient.nan_to_num(), again.nan_to_num())
            return failed(
                f"the same step twice differs in {name} by {difference:.2g}",
                "randomness that the seed does not govern, state that a pass leaves behind, or a kernel that adds in "
                "changing order",
            )
    if reset := seeded_by_a_pass(subject):
        return failed(
            f"a pass in training mode seeds the random generator of {' and '.join(reset)}",
            "manual_seed() or its like in forward(): every step then draws the same dropout, and whatever else draws "
            "starts over; seed where training starts, or draw from a torch.Generator of your own",
        )
    return round_trip(subject)


def seeded_by_a_pass(subject: Subject) -> list[str]:
    """Generators that stand at the same place after a pass, wherever they started."""
    after = []
    for seed in (subject.seed, subject.seed + 1):
        with torch.no_grad(), mode(subject.spread, training=True), seeded(seed, subject.device):
            subject.spread(subject.batch.rows(1, 8).tokens)
            after.append(generator_states())
    return [name for name, state in after[0].items() if state == after[1][name]]


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit by bit, and what is not a number equals its like."""
    return torch.equal(one, other) or torch.equal(one.nan_to_num(), other.nan_to_num())


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
