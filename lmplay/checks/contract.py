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
OF_TWO_TYPES = ("have the same dtype", "to have the same dtype", "expected scalar type", "same data type")
"""What torch says of a matrix product, a norm or attention."""


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
        if wide := [name for name, parameter in model.named_parameters() if parameter.dtype == torch.float64]:
            return failed(
                f"parameters in float64: {', '.join(wide[:6])}",
                "numpy's numbers are float64, and what meets them becomes it too: twice the memory, and many times "
                "slower on a GPU; make them with dtype=torch.float32",
            )
        parameters = dict(model.named_parameters())
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
            if made := [name for name, one in model.named_parameters() if parameters.get(name) is not one]:
                return failed(
                    f"forward(x) makes parameters: {', '.join(made[:6])}",
                    "the optimizer is built before the first pass and would never move them: make all layers in the "
                    "constructor",
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
    if answer.dtype == torch.float64:
        return failed(
            "logits are float64",
            "a float64 tensor on the way makes everything after it float64, which is twice the memory and many times "
            "slower on a GPU: np.array or torch.tensor of numpy's numbers without dtype=torch.float32",
        )
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
    if any(said in text for said in OF_TWO_TYPES):
        cause = (
            "two types of numbers meet: numpy's are float64 and a matrix product takes only one type; make the tensor "
            "with dtype=torch.float32, or in the other's with .to(h.dtype)"
        )
    return failed(f"{type(error).__name__}: {text} ({place})", cause)
