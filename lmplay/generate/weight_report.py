"""What each kind of weights costs in perplexity and gains in speed. Called by `lmplay generate --compare-weights`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from lmplay.base.base_model import LMBase
from lmplay.generate.config import SamplingConfig
from lmplay.generate.engine import evaluating, generate
from lmplay.generate.loading import choose_device, load
from lmplay.generate.weights import int8_available, weight_bytes
from lmplay.utils.errors import WrongUsageError

LONGEST_WINDOW = 512
DECODED_TOKENS = 24


@dataclass(frozen=True, kw_only=True)
class WeightReport:
    weights: str
    weight_bytes: int
    """Read for each token that is decoded."""
    tokens_per_second: float
    """Decoding at batch 1, after a short prompt."""
    loss: float
    """Mean over the text's tokens, in nats."""
    perplexity: float
    change: float
    """Of the perplexity over float32's, as a share: 0.01 is one percent worse."""
    tokens: int
    """How many were predicted."""


def compare_weights(
    checkpoint: str | Path,
    text: str,
    *,
    device: str = "auto",
    max_tokens: int = 4096,
    progress: Callable[[str], None] | None = None,
) -> Iterator[WeightReport]:
    """A report for each kind of weights that the device can use, float32 first, each on the same tokens of `text`."""
    on_cpu = choose_device(device).type == "cpu"
    kinds = ["float32", "bfloat16"] + (["int8"] if on_cpu and int8_available() else [])
    baseline: float | None = None
    for kind in kinds:
        if progress is not None:
            progress(kind)
        model = load(checkpoint, device=device, weights=kind).model
        tokens = model.tokenizer.encode_ordinary(text)[: max_tokens + 1]
        if len(tokens) < 2:
            raise WrongUsageError("the text is too short to measure a perplexity on; give one of some thousand words")
        with torch.inference_mode():
            loss = mean_loss(model, tokens)
            config = SamplingConfig(temperature=0, max_tokens=DECODED_TOKENS)
            speed = generate(model, [tokens[: model.max_len // 4]], config)[0].tokens_per_second
        baseline = loss if baseline is None else baseline
        yield WeightReport(
            weights=kind,
            weight_bytes=weight_bytes(model),
            tokens_per_second=speed,
            loss=loss,
            perplexity=math.exp(min(loss, 700.0)),
            change=math.expm1(loss - baseline),
            tokens=len(tokens) - 1,
        )


def mean_loss(model: LMBase, tokens: Sequence[int]) -> float:
    """Cross entropy in nats over all tokens but the first, in windows of up to `max_len` that share a token each."""
    device, size = next(model.parameters()).device, min(model.max_len, LONGEST_WINDOW)
    total = 0.0
    with evaluating(model):
        for start in range(0, len(tokens) - 1, size):
            window = torch.tensor(tokens[start : start + size + 1], device=device)
            logits = model(window[:-1].unsqueeze(0))[0]  # (T, V)
            total += float(F.cross_entropy(logits.float(), window[1:], reduction="sum"))
    return total / (len(tokens) - 1)
