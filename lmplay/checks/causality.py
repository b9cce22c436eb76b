"""Does any position look ahead? Tokens are changed one by one, and no logit before the change may move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lmplay.base.base_model import LMBase, hidden_of
from lmplay.checks.difference import by_position, largest, spread_of
from lmplay.checks.result import CheckResult, failed, passed, skipped
from lmplay.checks.subject import Subject, mode, seeded

SHORT = 24
"""Every token of a text of this length is changed; in a longer one, those where blocks have their borders."""
BORDERS = (24, 25, 28, 30, 32, 33, 36, 40, 44, 45, 48, 50, 52, 55, 56, 60)
FAR_BORDERS = (64, 100, 128, 192, 200, 256, 384, 512, 768)
PAST_A_BORDER = 4
"""Each far border is changed in a text of its own, which ends so many tokens later."""
TOLERANCE = 1e-5
"""Of the spread of the logits. Passes of equal shape differ by nothing or nearly nothing."""


@dataclass(frozen=True)
class Leak:
    """The logits at `seen_at` move when token `changed` does."""

    changed: int
    seen_at: int
    size: float
    training: bool = False


def check_causality(subject: Subject) -> CheckResult:
    """Changing token t changes no logit before t: each t of a short text, usual borders of blocks, in training too."""
    tokens = subject.batch.tokens[:1]
    short, long = tokens[:, :SHORT], tokens
    model = subject.spread
    # The output projection is half of a small model, and looks at each position alone.
    hidden = hidden_of(model)
    with torch.no_grad():
        if deaf(model, short, subject):
            return failed(
                "no logit moves when all tokens change",
                "the logits do not depend on the tokens: forward() works on something else than x, or a factor of zero "
                "takes them away",
            )
        leaks = find_leaks(model, short, range(1, short.size(1)), subject)
        length = long.size(1)
        if length > SHORT:
            leaks += find_leaks(model, long, (*BORDERS, length - 1), subject)
        for border in FAR_BORDERS:
            if not leaks and border < model.max_len:
                length = min(border + PAST_A_BORDER, model.max_len)
                leaks = find_leaks(model, subject.text(1, length).tokens, (border,), subject, through=hidden)
        if not leaks:
            leaks = find_leaks(model, short, (1, SHORT // 2, short.size(1) - 1), subject, training=True)
        if not model.causal:
            return say_non_causal(leaks)
        if not leaks:
            return passed(
                f"{short.size(1) - 1} tokens changed one by one, others at up to {length}, in eval and training mode: "
                "no logit before them moved"
            )
        first = min(leaks, key=lambda leak: (leak.seen_at, leak.changed))
        place = " in training mode" if first.training else ""
        return failed(
            f"position {first.seen_at} sees token {first.changed}{place}: its logits move by {first.size:.2g}",
            likely_cause(model, short, leaks, subject),
        )


def deaf(model: LMBase, tokens: torch.Tensor, subject: Subject) -> bool:
    with mode(model, training=False):
        with seeded(subject.seed, subject.device):
            expected = model(tokens)
        with seeded(subject.seed, subject.device):
            changed = model((tokens + model.vocab_size // 2) % model.vocab_size)
    return torch.equal(expected, changed)


def find_leaks(
    model: LMBase,
    tokens: torch.Tensor,
    changes: range | tuple[int, ...],
    subject: Subject,
    *,
    training: bool = False,
    through: Callable[..., torch.Tensor] | None = None,
) -> list[Leak]:
    """For each changed position, the earliest position before it whose logits, or `through(tokens)`, move."""

    def logits(ids: torch.Tensor) -> torch.Tensor:
        # In training mode, equal seeds and shapes give equal dropout.
        with mode(model, training=training), seeded(subject.seed, subject.device):
            result: torch.Tensor = (through or model)(ids)
        return result

    expected = logits(tokens)
    limit = TOLERANCE * spread_of(expected)
    if training and largest(expected, logits(tokens)) > limit:
        return []  # not even the same text gives the same logits: the check of determinism tells
    leaks = []
    for position in changes:
        if not 0 < position < tokens.size(1):
            continue
        moved = by_position(expected, logits(with_change(tokens, position, model.vocab_size)))[:position]
        seen = torch.nonzero(moved > limit)
        if len(seen):
            first = int(seen[0])
            leaks.append(Leak(position, first, float(moved[first]), training))
    return leaks


def with_change(tokens: torch.Tensor, position: int, vocabulary: int) -> torch.Tensor:
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + vocabulary // 2) % vocabulary
    return changed


def likely_cause(model: LMBase, tokens: torch.Tensor, leaks: list[Leak], subject: Subject) -> str:
    if leaks[0].training:
        return "only the path that training takes looks ahead: compare what forward() does under self.training"
    middle = tokens.size(1) // 2
    with mode(model, training=False), seeded(subject.seed, subject.device):
        expected = model(tokens)
        changed = model(with_change(tokens, middle, model.vocab_size))
    moved = by_position(expected, changed) > TOLERANCE * spread_of(expected)
    if bool(moved[:middle].any()) and not bool(moved[middle + 1 :].any()):
        return "the mask is transposed: positions see what comes after them and nothing of what came before"
    changed = sorted({leak.changed for leak in leaks})
    if changed[0] > 1 and len(changed) < middle:
        places = f"{changed[0]} and others" if len(changed) > 1 else str(changed[0])
        return (
            f"most positions are masked, and the border at token {places} is not: a block, a chunk or a window of "
            "attention that looks across its end"
        )
    short = [leak for leak in leaks if leak.changed < tokens.size(1)]
    reach = max((leak.changed - leak.seen_at for leak in short), default=0)
    if 0 < reach < middle and all(leak.seen_at == max(0, leak.changed - reach) for leak in short):
        return "the mask is off by one: a position sees the next token, which is its own target" + (
            f", and through the layers {reach} tokens ahead" if reach > 1 else ""
        )
    if short and all(leak.seen_at == 0 for leak in short):
        return "every position sees the whole text: a causal mask is missing, or something is averaged over time"
    return "something mixes over time without a causal mask: attention, a convolution's padding, a norm or a mean"


def say_non_causal(leaks: list[Leak]) -> CheckResult:
    if leaks:
        seen = max(leaks, key=lambda leak: leak.changed - leak.seen_at)
        evidence = f"position {seen.seen_at} sees token {seen.changed}, as a non-causal model may"
    else:
        evidence = "no position looks ahead in this text, though the model may"
    return skipped(evidence, "the model declares itself non-causal (causal = False)")
