"""Finding out why a batch gives no finite loss or gradient: which parameters, which layer, which samples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lmplay.base.base_model import LMBase
from lmplay.train.feed import DeviceBatch, Piece
from lmplay.train.keep.randomness import preserved_randomness
from lmplay.train.parallel.tensors import whole
from lmplay.train.update.step import TrainStep

# As much as a person reads; the worker's log and the events hold no more either.
MOST_NAMES = 20
MOST_SAMPLES = 4
SAMPLE_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What is not finite, most telling first."""

    weights: tuple[str, ...]  # parameters that hold such a number themselves
    layer: str | None  # first module whose output has one
    gradients: tuple[str, ...]  # parameters whose gradient has one
    samples: tuple[dict[str, Any], ...]  # {"row", "loss", "text"} of the samples that cause it, each on its own

    def fields(self) -> dict[str, Any]:
        return {
            "weights": list(self.weights[:MOST_NAMES]),
            "layer": self.layer,
            "gradients": list(self.gradients[:MOST_NAMES]),
            "num_gradients": len(self.gradients),
            "samples": list(self.samples),
        }

    def summary(self) -> str:
        """One line for people."""
        parts = []
        if self.weights:
            parts.append(f"weights that are not finite themselves: {_some(self.weights)}")
        if self.layer:
            parts.append(f"first in the output of {self.layer}")
        if self.gradients:
            parts.append(f"gradients of {_some(self.gradients)}")
        if self.samples:
            texts = ", ".join(f"row {sample['row']} ({sample['text'][:40]!r})" for sample in self.samples)
            parts.append(f"samples: {texts}")
        return "; ".join(parts) or "computed again, everything is finite: look for randomness in the model"


def examine(step: TrainStep, batch: DeviceBatch, model: LMBase) -> Trouble:
    """Compute `batch` again, one sample at a time, and see where it goes wrong. Leaves no gradient behind."""
    gradients: dict[str, None] = {}  # ordered as the model's parameters
    samples: list[dict[str, Any]] = []
    layer: str | None = None
    with preserved_randomness(step.device):
        for row, piece in _rows(batch):
            one = DeviceBatch(pieces=(piece,), samples=1, num_targets=piece.num_targets, first_row=row)
            with _watched(model) as first:
                loss = step.accumulate(one, together=False)["loss"]
            bad = [name for name, p in model.named_parameters() if p.grad is not None and not _is_finite(p.grad)]
            if piece.num_targets and (bad or not _is_finite(loss)):
                gradients.update(dict.fromkeys(bad))
                layer = layer or next(iter(first), None)
                text = model.tokenizer.decode(piece.tokens[0].tolist())[:SAMPLE_CHARACTERS]
                samples.append({"row": row, "loss": float(loss), "text": text})
    step.optimizer.zero_grad(set_to_none=True)
    weights = tuple(name for name, parameter in model.named_parameters() if not _is_finite(parameter))
    return Trouble(weights=weights, layer=layer, gradients=tuple(gradients), samples=tuple(samples[:MOST_SAMPLES]))


def _rows(batch: DeviceBatch) -> Iterator[tuple[int, Piece]]:
    row = batch.first_row
    for piece in batch.pieces:
        for index in range(len(piece.tokens)):
            part = slice(index, index + 1)
            documents = None if piece.documents is None else piece.documents[part]
            targets = piece.targets[part]
            count = int((targets >= 0).sum())
            yield row, Piece(tokens=piece.tokens[part], targets=targets, documents=documents, num_targets=count)
            row += 1


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """The names of modules whose outputs are not finite, in the order in which they were computed."""
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 - the shape of a hook
            if isinstance(output, Tensor) and not _is_finite(output):
                found.append(name)

        return module.register_forward_hook(look)

    handles = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(whole(tensor)).all())


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
