"""Does every parameter learn? A real forward and backward pass, and a verdict on each gradient."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import replace

import torch

from lmplay.base.base_model import LMBase
from lmplay.checks.result import CheckResult, Gradient, GradientStatus, failed, passed
from lmplay.checks.slope import find_wrong_slope, part_of
from lmplay.checks.subject import Subject, TextBatch, losses, seeded

TINY = 1e-7
HUGE = 1e4
"""Norms below and above these, relative to the median norm of the model, are called tiny and huge."""
WAKING_STEPS = 6
"""So many steps, each on ids and with seeds of its own, are tried to reach what the first pass did not."""
NAMED = 6


def check_gradients(subject: Subject) -> CheckResult:
    """Every parameter that is not frozen on purpose gets a finite gradient that is not zero.

    A gradient that is zero only because a layer behind it starts at zero counts once a step of training has woken it;
    an expert that no token came to, or a layer that was dropped, once another batch has reached it.
    """
    model = subject.fresh().train()
    gradients = measure(model, subject, subject.batch, subject.seed)
    asleep = {row.name: row.status for row in gradients if row.status in ("zero", "none") and not row.frozen}
    found = reach(model, subject, set(asleep)) if asleep else {}
    gradients = [found.get(row.name, row) for row in gradients]
    woken = {name for name in found if asleep[name] == "zero"}
    reached = set(found) - woken
    # Of its like some were reached: an expert that hardly any token goes to, and no forgotten layer.
    kinds = {kind(name) for name in reached}
    unlucky = {name for name in asleep if name not in found and asleep[name] == "none" and kind(name) in kinds}
    result = verdict(
        gradients,
        woken,
        reached,
        unlucky,
        meant=frozen_on_purpose(subject.model),
        shared=shared_weights(subject.model),
    )
    if not result.ok or (wrong := wrong_though_there(subject)) is None:
        return result
    return replace(wrong, gradients=result.gradients)


def wrong_though_there(subject: Subject) -> CheckResult | None:
    """What is wrong with gradients that are all there: two parameters over one memory, or a path that is cut."""
    if pairs := two_over_one_memory(subject.model):
        return failed(
            "two parameters over the same memory: " + listed([" and ".join(pair) for pair in pairs]),
            "tied by `.data =`: the optimizer moves the memory once for each of them, and loading or moving the model "
            "tears them apart; assign the parameter itself: self.fc.weight = self.tok_embed.weight",
        )
    if subject.model.surrogate_gradients or (slope := find_wrong_slope(subject)) is None:
        return None
    right = f", right in {listed(list(slope.right))}" if slope.right else ""
    return failed(
        f"gradients are not the slope of the loss (off by {slope.share:.0%}): wrong in {listed(list(slope.wrong))}"
        f"{right}",
        "one of several paths is cut between the two: detach(), .data, no_grad() or .item() on the residual path or "
        "beside it; a model that means it (straight-through, scaled gradients) says so with surrogate_gradients = True "
        "in its class",
    )


def two_over_one_memory(model: LMBase) -> list[tuple[str, str]]:
    """Pairs of parameters that are not the same and share their storage."""
    first: dict[int, str] = {}
    pairs = []
    for name, parameter in model.named_parameters():
        if parameter.numel():
            other = first.setdefault(parameter.data_ptr(), name)
            if other != name:
                pairs.append((name, other))
    return pairs


def kind(name: str) -> str:
    """The same for `experts.3.up.weight` and `experts.7.up.weight`."""
    return re.sub(r"\d+", "*", name)


def reach(model: LMBase, subject: Subject, asleep: set[str]) -> dict[str, Gradient]:
    """Gradients of those parameters in `asleep` that some steps of training, or other batches, have reached."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    found: dict[str, Gradient] = {}
    for seed in range(subject.seed + 1, subject.seed + 1 + WAKING_STEPS):
        if len(found) == len(asleep):
            break
        optimizer.step()
        later = measure(model, subject, any_ids(subject, seed), seed)
        found |= {row.name: row for row in later if row.name in asleep and row.status == "ok"}
    return found


def any_ids(subject: Subject, seed: int) -> TextBatch:
    """A batch as large as the subject's, of ids from the whole vocabulary."""
    rows, length = subject.batch.tokens.shape
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(subject.model.vocab_size, (rows, length + 1), generator=generator).to(subject.device)
    return TextBatch(tokens=ids[:, :-1], targets=ids[:, 1:])


def measure(model: LMBase, subject: Subject, batch: TextBatch, seed: int) -> list[Gradient]:
    """The gradients of one batch; leaves them in `.grad`."""
    model.zero_grad(set_to_none=True)
    with seeded(seed, subject.device):
        total = torch.stack(list(losses(model, batch).values())).sum()
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
    norms = {
        name: None if parameter.grad is None else float(torch.linalg.vector_norm(parameter.grad.float()))
        for name, parameter in model.named_parameters()
    }
    alive = [norm for norm in norms.values() if norm is not None and 0 < norm < float("inf")]
    median = statistics.median(alive) if alive else 1.0
    rows = []
    for name, parameter in model.named_parameters():
        norm = norms[name]
        weight = float(torch.linalg.vector_norm(parameter.detach().float()))
        rows.append(
            Gradient(
                name=name,
                shape=tuple(parameter.shape),
                frozen=not parameter.requires_grad,
                status=status_of(norm, median),
                grad_norm=norm,
                ratio=None if norm is None or weight == 0 else norm / weight,
            )
        )
    return rows


def status_of(norm: float | None, median: float) -> GradientStatus:
    if norm is None:
        return "none"
    if norm != norm or norm == float("inf"):
        return "nan"
    if norm == 0:
        return "zero"
    if norm < TINY * median:
        return "tiny"
    return "huge" if norm > HUGE * median else "ok"


def frozen_on_purpose(model: LMBase) -> set[str]:
    """Names of the parameters that are tagged `freeze = True`, which the trainer leaves alone too."""
    return {name for name, parameter in model.named_parameters() if getattr(parameter, "freeze", False)}


def shared_weights(model: LMBase) -> dict[str, list[str]]:
    """Parts that use another part's weights, by that part: a tied head, or `[Block()] * n` by mistake."""
    first: dict[torch.nn.Parameter, str] = {}
    found: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        one, other = first.setdefault(parameter, name).split("."), name.split(".")
        while one and other and one != other and one[-1] == other[-1]:
            one.pop()
            other.pop()
        if one != other and ".".join(other) not in found.setdefault(".".join(one), []):
            found[".".join(one)].append(".".join(other))
    return {part: users for part, users in found.items() if users}


def verdict(
    gradients: list[Gradient],
    woken: set[str],
    reached: set[str],
    unlucky: set[str],
    *,
    meant: set[str],
    shared: dict[str, list[str]],
) -> CheckResult:
    def names(status: GradientStatus) -> list[str]:
        return [row.name for row in gradients if row.status == status and not row.frozen and row.name not in unlucky]

    frozen = [row.name for row in gradients if row.frozen]
    unmeant = [name for name in frozen if name not in meant]
    causes = {
        "nan": "the loss or a step on the way to it is not a number: a division by zero, a logarithm of zero, or "
        "weights that start too large",
        "none": "never used on the way to the loss: forward() does not call the layer, or throws its result away",
        "zero": "used, but nothing reaches it: a detach(), a factor of zero, or a path that is switched off",
        "huge": "gradients explode on the way to these: a missing norm, or weights that start too large",
        "tiny": "gradients vanish on the way to these: a saturated function, or too small a factor",
    }
    evidence, reasons = [], []
    status: GradientStatus
    for status, cause in causes.items():  # type: ignore[assignment]
        if found := names(status):
            evidence.append(f"{status}: {listed(found)}")
            reasons.append(cause)
    if unmeant:
        evidence.append(f"frozen: {listed(unmeant)}")
        reasons.append(
            "requires_grad is off, so training leaves these as they are; if that is meant, tag them: "
            "`parameter.freeze = True`"
        )
    if evidence:
        return failed("; ".join(evidence), "; ".join(reasons), gradients=tuple(gradients))
    norms = [row.grad_norm for row in gradients if row.grad_norm]
    said = f"{len(gradients) - len(frozen)} parameters, norms {min(norms):.1e} to {max(norms):.1e}"
    if woken:
        said += f"; zero at first and woken by a step: {listed(sorted(woken))}"
    if reached:
        said += f"; reached by some batches only: {listed(sorted(reached))}"
    if unlucky:
        said += f"; by none of {WAKING_STEPS + 1}, though others of their kind were: {listed(sorted(unlucky))}"
    if shared:
        said += "; shared weights: " + ", ".join(f"{listed(users)} with {part}" for part, users in shared.items())
    if frozen:
        said += f"; frozen on purpose: {listed(frozen)}"
    return passed(said, gradients=tuple(gradients))


def listed(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def norms_by_block(gradients: Iterable[Gradient]) -> dict[str, float]:
    """The gradient norm of each part, repeated parts one by one, in order: "tok_embed", "blocks.0", "blocks.1", ..."""
    squares: dict[str, float] = {}
    for row in gradients:
        part = part_of(row.name)
        squares[part] = squares.get(part, 0.0) + (row.grad_norm or 0.0) ** 2
    return {name: square**0.5 for name, square in squares.items()}
