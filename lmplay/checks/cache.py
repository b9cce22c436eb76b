"""Does generating with the cache give what a full pass gives? Token by token and in chunks, for one row and several."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch

from lmplay.base.base_model import LMBase, hidden_of
from lmplay.base.kv_cache import KVCache
from lmplay.checks.difference import largest, spread_of
from lmplay.checks.result import CheckResult, failed, passed, skipped
from lmplay.checks.subject import LENGTH, ROWS, Subject, mode

TOLERANCE = 1e-3
"""Of the spread of the logits. Kernels for one token and for many round differently; a wrong position is far off."""
SINGLES = 12
GROWN = 160
"""A text this long makes a plain list grow more than once."""
LARGEST_LOGITS = 2**30
"""Bytes of the full pass that several rows are held against; without `hidden`, rows end where theirs are full."""

CacheKind = Literal["make_cache", "plain list"]
BOTH: tuple[CacheKind, ...] = ("make_cache", "plain list")


@dataclass(frozen=True)
class Trial:
    """A text fed in pieces to one kind of cache."""

    pieces: tuple[int, ...]
    rows: int
    kind: CacheKind

    @property
    def length(self) -> int:
        return sum(self.pieces)

    @property
    def manner(self) -> str:
        return "token by token" if set(self.pieces) == {1} else "in chunks"


def check_cache(subject: Subject) -> CheckResult:
    """Logits with the cache equal those of the full pass, from an empty and a half-full cache, up to `max_len`."""
    model = subject.spread
    if not model.causal:
        return skipped("not asked", "the model declares itself non-causal: a cache would hide later tokens from it")
    if not takes_cache(model):
        return skipped(
            "forward() takes no cache: each generated token costs a pass over the whole text",
            "add `cache=None` to forward() and return (logits of the last token, cache) when it is given",
        )
    whole = model.max_len
    reach = whole if hidden_of(model) else min(whole, max(LENGTH, LARGEST_LOGITS // (4 * ROWS * model.vocab_size)))
    batch = subject.text(ROWS, min(whole, LENGTH)).tokens
    courses = [
        (subject.text(1, min(whole, GROWN)).tokens, BOTH),
        (batch, BOTH),
        (subject.text(1, whole).tokens, BOTH[:1]),
        (subject.text(ROWS, reach).tokens, BOTH[:1]),
    ]
    largest_seen, nbytes = 0.0, 0
    with torch.no_grad(), mode(model, training=False):
        for tokens, kinds in courses:
            rows, length = tokens.shape
            if length <= LENGTH and kinds != BOTH:
                continue  # the short texts have been this long
            asked = trials(rows, length, kinds)
            expected = full_pass(
                model, tokens, sorted({end - 1 for trial in asked for end in accumulate(trial.pieces)})
            )
            for trial in asked:
                outcome = run_trial(model, trial, tokens, expected)
                if isinstance(outcome, CheckResult):
                    return outcome
                largest_seen, nbytes = max(largest_seen, outcome[0]), max(nbytes, outcome[1])
        padded = check_left_padding(model, batch)
        rewound = check_rewind(model, batch)
    if rewound is not None and not rewound.ok:
        return rewound
    if padded is not None and not padded.ok:
        return padded
    said = f"equal to {largest_seen:.1g}: rows 1 and {ROWS}, token by token and in chunks, up to position {whole}"
    said += f" ({ROWS} rows up to {reach})" if reach < whole else ""
    also = [what for what, asked in (("left padding", padded), ("taking back", rewound)) if asked is not None]
    said += f"; {' and '.join(also)} too" if also else ""
    return passed(f"{said}; {nbytes / 2**20:.1f} MiB a cache of {whole}" if nbytes else said)


def takes_cache(model: LMBase) -> bool:
    parameters = list(inspect.signature(model.forward).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    return len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in positional)


def trials(rows: int, length: int, kinds: Sequence[CacheKind]) -> list[Trial]:
    """From an empty cache token by token; then chunks with single tokens between them until the cache is full."""
    singles = (1,) * min(SINGLES, length)
    quarter = max(1, length // 4)
    chunks: list[int] = []
    for size in (quarter, 1, 1, quarter, 1, quarter, length, 1, 1):
        # The last two positions are left for single tokens.
        room = length - sum(chunks) - (2 if size > 1 else 0)
        if min(size, room) > 0:
            chunks.append(min(size, room))
    found: list[Trial] = []
    for kind in kinds:
        found.append(Trial(singles, rows, kind))
        found.append(Trial(tuple(chunks), rows, kind))
    return found


def full_pass(model: LMBase, tokens: torch.Tensor, positions: list[int]) -> dict[int, torch.Tensor]:
    """Logits `(B, V)` by position, without a cache; of a long text only these are computed where `hidden` allows."""
    hidden = hidden_of(model)
    if hidden is None or tokens.size(1) <= LENGTH:
        logits = model(tokens)[:, positions]  # (B, P, V)
    else:
        logits = model.output_projection(hidden(tokens)[:, positions])
    return dict(zip(positions, logits.unbind(1), strict=True))


def run_trial(
    model: LMBase, trial: Trial, tokens: torch.Tensor, expected: dict[int, torch.Tensor]
) -> tuple[float, int] | CheckResult:
    """(largest difference, bytes of the cache), or the failure."""
    cache: list[Any] = model.make_cache(trial.rows) if trial.kind == "make_cache" else []
    spread = spread_of(torch.stack(list(expected.values())))
    limit = TOLERANCE * spread
    end, worst = 0, 0.0
    for size in trial.pieces:
        start, end = end, end + size
        answer = model(tokens[:, start:end], cache)
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], list)):
            return failed(
                f"with a cache, forward() returns {described(answer)}, no pair of logits and cache",
                "end forward() with `return self.fc(h[:, -1:]), cache` when a cache is given; the cache is a list",
            )
        logits, cache = answer
        shape = (trial.rows, 1, expected[end - 1].size(-1))
        if logits.shape != shape:
            return failed(
                f"with a cache, logits have the shape {tuple(logits.shape)}, not {shape}",
                "with a cache, only the logits of the last token are returned: self.fc(h[:, -1:])",
            )
        difference = largest(logits[:, 0], expected[end - 1])
        if difference > limit:
            rows = [i for i in range(trial.rows) if largest(logits[i, 0], expected[end - 1][i]) > limit]
            which = "" if trial.rows == 1 else f" in row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}"
            return failed(
                f"{trial.kind}, {trial.rows} row{'s' if trial.rows > 1 else ''} {trial.manner}: position {end - 1} "
                f"differs by {difference:.2g}{which} (spread of the logits {spread:.2g})",
                likely_cause(model, trial, tokens, (start, end), logits[:, 0], limit),
            )
        worst = max(worst, difference)
    return worst, cache.nbytes if isinstance(cache, KVCache) else 0


def described(answer: object) -> str:
    """The types of what forward() returned: "Tensor", "(Tensor, dict)"."""
    if isinstance(answer, tuple):
        return f"({', '.join(type(part).__name__ for part in answer)})"
    return type(answer).__name__


def likely_cause(
    model: LMBase, trial: Trial, tokens: torch.Tensor, piece: tuple[int, int], logits: torch.Tensor, limit: float
) -> str:
    """Tells the usual mistakes apart by where the first difference is, and by what gives the same logits."""
    start, end = piece
    if trial.rows > 1:  # the trials with one row have passed before
        return "a single row is right and several are not: the cache mixes rows up, or keeps one for all"
    if start == 0 and end == 1:
        return "the very first token differs: the path with a cache does not compute what the path without it does"
    if start == 0:
        return "a first chunk differs: with a cache, its tokens must see each other causally, as without one"
    alone = model(tokens[:, start:end])[:, -1]
    if largest(alone, logits) <= limit:
        return "the cache is not read: the result is that of the new tokens alone"
    if end - start > 1:
        return (
            "a chunk after a cache that is not empty differs: the mask must let each new token see all that is cached "
            "and of its own chunk only what came before it"
        )
    return (
        "the keys are not all there or not in place: the position of a new token (and its rotation or bias) must come "
        "from the true length of the cache (cache_length); is_causal=True shows a single query the first key only; and "
        "a window must count its keys as the full pass does"
    )


def check_rewind(model: LMBase, tokens: torch.Tensor) -> CheckResult | None:
    """A cache that is cut back and fed other tokens, in a chunk and alone, as after `/undo` and `/retry` in a chat.

    None for a model that keeps something of its own in the cache, which then cannot be cut.
    """
    rows, length = tokens.shape
    if length < 8:
        return None
    kept = length // 2
    other = torch.cat((tokens[:, :kept], tokens[:, kept:].flip(1)), dim=1)
    cache: list[Any] = model.make_cache(rows)
    cache = model(tokens[:, : length - 1], cache)[1]
    if not isinstance(cache, KVCache) or not cache.can_truncate:
        return None
    expected = model(other)
    limit = TOLERANCE * spread_of(expected)
    cache.truncate(kept)
    end = kept
    for size in (3, 1):
        start, end = end, end + size
        difference = largest(model(other[:, start:end], cache)[0][:, 0], expected[:, end - 1])
        if difference > limit:
            return failed(
                f"taken back from {length - 1} to {kept} positions, then {size} other token{'s' if size > 1 else ''}: "
                f"position {end - 1} differs by {difference:.2g}",
                "something beside the cache remembers how far the text was, or what was said: a counter or a mask that "
                "the model keeps itself; derive both from the cache's length",
            )
    return passed("")


def check_left_padding(model: LMBase, tokens: torch.Tensor) -> CheckResult | None:
    """Rows of unequal length in one batch give what each gives alone; None for a model that does not claim it."""
    if not model.supports_left_padding or tokens.size(1) < 8:
        return None
    width = tokens.size(1) - 1
    padding = torch.tensor([0, width // 2, width - 2], device=tokens.device)
    padded = tokens[:, :width].clone()
    lengths = [width - int(pad) for pad in padding]
    for row, length in enumerate(lengths):
        padded[row, width - length :] = tokens[row, :length]
        padded[row, : width - length] = tokens[0, 0]
    following = torch.stack([tokens[row, length : length + 1] for row, length in enumerate(lengths)])  # (B, 1)
    cache: list[Any] = model.make_cache(len(lengths), left_padding=padding)
    answers = [model(padded, cache)[0], model(following, cache)[0]]
    for row, length in enumerate(lengths):
        expected = model(tokens[row : row + 1, : length + 1])
        limit = TOLERANCE * spread_of(expected)
        for answer, position in zip(answers, (length - 1, length), strict=True):
            difference = largest(answer[row, 0], expected[0, position])
            if difference > limit:
                return failed(
                    f"left padding of {width - length}: position {position} of row {row} differs by {difference:.2g}",
                    "the model declares supports_left_padding: positions must come from token_positions(x, cache) and "
                    "the mask from attention_mask(x, cache)",
                )
    return passed("")
