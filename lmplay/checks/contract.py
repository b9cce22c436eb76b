"""Does `forward(x)` do what everything else builds on? Asked before the checks, which would all stumble over it."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

from lmplay.checks.result import CheckResult, failed
from lmplay.checks.subject import Subject, mode, seeded
from lmplay.utils.errors import LMPlayError

BEYOND_A_TABLE = "index out of range in self"
"""What torch says of an embedding."""


def broken_contract(subject: Subject) -> CheckResult | None:
    """The failure of a plain forward pass on four tokens, then on the batch; settings that cannot be meant are raised.

    Without a cache, logits `(B, T, V)` come back, in a floating-point type, for every token of the vocabulary, and the
    ids that were given stay as they are.
    """
    try:
        model = subject.model
        if not any(True for _ in model.parameters()):
            return failed(
                "the model has no parameters",
                "nothing can be trained: layers in a plain list or dict are not registered; use nn.ModuleList or "
                "nn.ModuleDict",
            )
        for tokens in (subject.text(1, min(4, model.max_len)).tokens, subject.batch.tokens):
            given = tokens.clone()
            with torch.no_grad(), mode(model, training=False), seeded(subject.seed, subject.device):
                answer = model(given)
            if (broken := wrong_answer(answer, tokens, model.vocab_size)) is not None:
                return broken
            if not torch.equal(given, tokens):
                return failed(
                    "forward(x) changes the token ids in x",
                    "an operation in place, as x[...] = or x.clamp_(): the caller's batch is changed with it; work on "
                    "a copy, x = x.clone()",
                )
    except LMPlayError:
        raise
    except Exception as error:  # noqa: BLE001 (a check runs other people's code: whatever it raises is an answer)
        return raised(error)
    return None


def wrong_answer(answer: object, tokens: torch.Tensor, vocabulary: int) -> CheckResult | None:
    """What is wrong with `forward(tokens)`, of whatever kind it is."""
    wanted = "without a cache, forward() returns the logits alone, of every position: (B, T) -> (B, T, V)"
    if not isinstance(answer, torch.Tensor):
        return failed(f"forward(x) returns {type(answer).__name__}, not a tensor", wanted)
    if answer.dim() != 3 or answer.shape[:2] != tokens.shape:
        expected = (*tokens.shape, vocabulary)
        return failed(f"logits have the shape {tuple(answer.shape)}, not {expected}", wanted)
    if not answer.is_floating_point():
        return failed(f"logits are {str(answer.dtype).removeprefix('torch.')}, not floating-point numbers", wanted)
    if answer.size(-1) < vocabulary:
        return failed(
            f"logits for {answer.size(-1)} tokens, and the tokenizer has {vocabulary}",
            "the output layer must be as wide as the vocabulary: nn.Linear(embed_dim, self.vocab_size); a tokenizer "
            "of your own goes into self.tokenizer",
        )
    logits = answer.double()
    if bool((logits >= 0).all()) and bool(((logits.sum(-1) - 1).abs() < 1e-3).all()):
        return failed(
            "the logits of each position are not negative and sum to 1",
            "these are probabilities: the loss and the sampler apply softmax themselves, so forward() must not",
        )
    return None


def raised(error: Exception) -> CheckResult:
    if isinstance(error, LMPlayError):  # says itself what is wrong, and what to do
        return failed(str(error), "docs/models.md lists what a model may define, and what is expected of it")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "an unknown place"
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:300]}..."
    cause = "the model raised this error"
    if BEYOND_A_TABLE in text:
        cause = (
            "an id or a position beyond the end of an embedding: positions go from 0 to max_len - 1, ids from 0 to the "
            "size of the vocabulary - 1"
        )
    return failed(f"{type(error).__name__}: {text} ({place})", cause)
