"""What the checks look at: a model as it is built, the same model with spread weights, and a few rows of real text."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lmplay.base.base_model import LMBase
from lmplay.base.base_runner import LMRunnerBase
from lmplay.utils.errors import LMPlayError

ROWS = 3
LENGTH = 64
TINY = {"max_len": 64, "num_blocks": 2, "num_layers": 2, "embed_dim": 64, "hidden_dim": 64, "num_heads": 2}
"""What `--tiny` sets, of these, a model that takes it; never to more than it already is."""


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """Rows of text, as training sees them and as a model's `train_loss` is given them."""

    tokens: torch.Tensor  # (B, T)
    targets: torch.Tensor  # (B, T)
    documents: torch.Tensor | None = None

    @property
    def num_targets(self) -> int:
        return int((self.targets >= 0).sum())

    def rows(self, count: int, length: int) -> TextBatch:
        return TextBatch(tokens=self.tokens[:count, :length], targets=self.targets[:count, :length])


class Subject:
    """One experiment under examination. Each model is built when a check first asks for it."""

    def __init__(
        self,
        runner: LMRunnerBase,
        *,
        settings: Mapping[str, Any] | None = None,
        tiny: bool = False,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.runner = runner
        self.settings = {**(tiny_settings(runner) if tiny else {}), **(settings or {})}
        self.device = torch.device(device)
        self.seed = seed
        self._text: torch.Tensor | None = None

    def look_at(self, tokens: torch.Tensor) -> None:
        """Take `tokens`, at least `(3, max_len + 1)` ids, instead of the built-in text."""
        self._text = tokens

    def build(self) -> LMBase:
        """The model as training starts with it, built anew from the seed."""
        with seeded(self.seed, self.device):
            return self.runner.build_model(**self.settings).to(self.device)

    @cached_property
    def model(self) -> LMBase:
        """The model as it is built. Checks leave its weights alone."""
        return self.build()

    def fresh(self) -> LMBase:
        """A copy of `model` to train a few steps."""
        return duplicate(self.model)

    @cached_property
    def spread(self) -> LMBase:
        """A copy in which every path is alive.

        Weights that start at zero, as gates and residual projections may, would hide what flows through them.
        """
        model = duplicate(self.model)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    deviation = 0.5 / math.sqrt(parameter.shape[-1]) if parameter.dim() > 1 else 0.1
                    noise = torch.randn(parameter.shape, generator=generator) * deviation
                    parameter.add_(noise.to(parameter))
            sound = torch.isfinite(model.eval()(self.batch.tokens[:1, :8])).all()
        # Weights of a special kind, as rates that must stay positive, do not bear noise.
        return model if sound else duplicate(self.model)

    @cached_property
    def batch(self) -> TextBatch:
        """`(3, min(max_len, 64))` tokens of real text, each row a text of its own."""
        return self.text(ROWS, min(self.model.max_len, LENGTH))

    def text(self, rows: int, length: int) -> TextBatch:
        if self._text is not None:
            ids = self._text[:rows, : length + 1]
        else:
            ids = torch.tensor(builtin_rows(self.model, rows, length + 1))
        ids = ids.to(self.device)
        return TextBatch(tokens=ids[:, :-1], targets=ids[:, 1:])


def duplicate(model: LMBase) -> LMBase:
    """A deep copy, but for the tokenizer: it never changes, and its tables take longer than the weights."""
    return copy.deepcopy(model, {id(model.tokenizer): model.tokenizer})


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers start from `seed` in here, and go on afterwards as if nothing had been.

    Torch's, Python's and numpy's: the trainer seeds and keeps all three, so a model may draw from any.
    """
    devices = [device] if device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def generator_states() -> dict[str, object]:
    """Where the generators that `seeded` seeds stand, by whose they are."""
    kind, numbers, place, *_ = np.random.get_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": [state.tolist() for state in (torch.get_rng_state(), *devices)],
        "Python": random.getstate(),
        "numpy": (kind, np.asarray(numbers).tolist(), place),
    }


def tiny_settings(runner: LMRunnerBase) -> dict[str, Any]:
    """The settings that make the model of `runner` small enough for a check in seconds."""
    defaults = {name: parameter.default for name, parameter in runner.model_parameters().items()}
    return {
        name: small for name, small in TINY.items() if isinstance(defaults.get(name), int) and defaults[name] > small
    }


def builtin_rows(model: LMBase, rows: int, length: int) -> list[list[int]]:
    """Token ids of the built-in text, each row from another place of it."""
    from lmplay.data.sources.builtin import BuiltinSource

    found: list[list[int]] = []
    ids: list[int] = []
    for batch in BuiltinSource("pydocs").batches(None):
        for row in batch.rows:
            ids += model.tokenizer.encode_ordinary(str(row.values["text"]))
            if len(ids) >= length:
                found.append(ids[:length])
                ids = []
            if len(found) == rows:
                return found
    raise LMPlayError(f"the built-in text is shorter than {rows} rows of {length} tokens")


def losses(model: LMBase, batch: TextBatch) -> dict[str, torch.Tensor]:
    """What training optimises: the model's own terms, or the cross entropy of its logits as "loss"."""
    own = getattr(model, "train_loss", None)
    if own is not None:
        terms: dict[str, torch.Tensor] = own(batch)
        if not isinstance(terms, dict) or "loss" not in terms:
            what = f"the keys {', '.join(map(str, terms))}" if isinstance(terms, dict) else type(terms).__name__
            raise LMPlayError(f'train_loss() returned {what}; wanted is {{"loss": ..., "another term": ...}}')
        for name, term in terms.items():
            if not isinstance(term, torch.Tensor) or term.dim() != 0:
                shape = f"shape {tuple(term.shape)}" if isinstance(term, torch.Tensor) else type(term).__name__
                raise LMPlayError(
                    f'train_loss() returned {shape} as "{name}"; wanted is a tensor of one number, a mean'
                )
        return terms
    return {"loss": cross_entropy(model(batch.tokens), batch.targets)}


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over the target tokens, in nats, of logits `(B, T, V)`."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    was = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(was)
