"""Stages and validation parts of a plan as rows by position. What `lmplay.train` opens.

Position -> (dataset, its epoch, its row) is arithmetic (`lmplay.data.order`), and row -> tokens is a read from mapped
shards (`lmplay.data.packing`), so a run resumes at any position in no time, and two runs see the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lmplay.data.batch import Batch, Progress
from lmplay.data.order import Mixture, Permutation, derive_key
from lmplay.data.packing import Packing, StreamPacking
from lmplay.data.part import Part, split, whole
from lmplay.data.prepare import prepare
from lmplay.data.tokens import token_sizes
from lmplay.plans import DatasetSpec, PackingMode, Plan, Stage
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json
from lmplay.utils.names import did_you_mean

_PACKINGS = ("stream", "document", "pad")


@dataclass(frozen=True)
class _Diet:
    """One dataset of a stage, packed."""

    name: str
    part: Part
    packing: Packing
    sequence_length: int
    key: int

    def fill(self, use: int, batch: Batch, row: int) -> None:
        """Write the dataset's row number `use`, counted through all its epochs, into row `row` of the batch."""
        epoch, position = divmod(use, self.packing.num_rows)
        number = int(Permutation(self.packing.num_rows, derive_key(self.key, epoch))(position)[0])
        phase = derive_key(self.key, epoch, "phase") % self.sequence_length
        self.packing.fill(number, phase, batch.tokens[row], batch.targets[row])


class StageData:
    """The rows of one stage, in training order."""

    def __init__(self, stage: Stage, diets: list[_Diet], *, sequence_length: int, key: str) -> None:
        self.name = stage.name
        self.key = key
        self.sequence_length = sequence_length
        self._diets = diets
        # Weights are shares of tokens; rows of different datasets may hold different numbers of them.
        tokens_per_row = [diet.packing.num_tokens / diet.packing.num_rows for diet in diets]
        weights = list(stage.datasets.values())
        row_weights = [weight / tokens for weight, tokens in zip(weights, tokens_per_row, strict=True)]
        self._mixture = Mixture(row_weights)
        self.rows_per_epoch = sum(diet.packing.num_rows for diet in diets)
        mean_tokens = sum(weights) / sum(row_weights)
        if stage.samples is not None:
            self.num_rows = stage.samples
        elif stage.tokens is not None:
            self.num_rows = math.ceil(stage.tokens / mean_tokens)
        else:
            assert stage.epochs is not None
            self.num_rows = max(1, round(stage.epochs * self.rows_per_epoch))

    def rows(self, first: int, count: int) -> Batch:
        """Rows `first` to `first + count` of the stage: the same bytes whenever they are asked for."""
        _check_range(first, count, self.num_rows)
        batch = _empty_batch(count, self.sequence_length)
        for row in range(count):
            index, use = self._mixture.at(first + row)
            self._diets[index].fill(use, batch, row)
        return batch


class ValidationData:
    """The held-out documents of all datasets of a plan, in their order."""

    def __init__(self, diets: list[_Diet], *, sequence_length: int, key: str) -> None:
        self.key = key
        self.sequence_length = sequence_length
        self._diets = diets
        self._ends = np.cumsum([diet.packing.num_rows for diet in diets])
        self.num_rows = int(self._ends[-1])

    def rows(self, first: int, count: int) -> Batch:
        """Rows `first` to `first + count`."""
        _check_range(first, count, self.num_rows)
        batch = _empty_batch(count, self.sequence_length)
        for row in range(count):
            index = int(np.searchsorted(self._ends, first + row, side="right"))
            diet = self._diets[index]
            number = first + row - int(self._ends[index]) + diet.packing.num_rows
            diet.packing.fill(number, 0, batch.tokens[row], batch.targets[row])
        return batch

    @cached_property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of the text a target stands for, on average: what turns loss into bits per byte."""
        total_bytes = total_targets = 0
        for diet in self._diets:
            sizes = token_sizes(diet.part.store.manifest.tokenizer)
            for first in range(0, diet.packing.num_rows, 64):
                rows = self._rows_of(diet, first, min(64, diet.packing.num_rows - first))
                targets = rows.targets[rows.targets >= 0]
                total_bytes += int(sizes[targets].sum())
                total_targets += targets.size
        return total_bytes / total_targets

    def _rows_of(self, diet: _Diet, first: int, count: int) -> Batch:
        batch = _empty_batch(count, self.sequence_length)
        for row in range(count):
            diet.packing.fill(first + row, 0, batch.tokens[row], batch.targets[row])
        return batch


def open_stage(
    plan: Plan,
    index: int,
    *,
    sequence_length: int,
    packing: PackingMode = "stream",
    seed: int = 0,
    progress: Progress | None = None,
) -> StageData:
    """Rows of stage number `index` of a plan. Datasets that are not prepared yet are prepared now.

    The order depends on the plan's seed, `seed`, the stage's number, the dataset and the epoch, and on nothing else.
    """
    _check_packing(packing, sequence_length)
    stage = plan.stages[index]
    diets = []
    for name in stage.datasets:
        training, _ = _parts(plan, name, progress)
        diets.append(
            _Diet(
                name=name,
                part=training,
                packing=StreamPacking(training, sequence_length, ring=True),
                sequence_length=sequence_length,
                key=derive_key(plan.seed, seed, index, name),
            )
        )
    key = _key(
        stage=stage.model_dump(exclude={"train", "name", "packing"}, exclude_none=True),
        stores={diet.name: diet.part.store.key for diet in diets},
        held_out={name: _held_out(plan.datasets[name]) for name in stage.datasets},
        order=[plan.seed, seed, index],
        rows=[packing, sequence_length],
    )
    return StageData(stage, diets, sequence_length=sequence_length, key=key)


def open_validation(
    plan: Plan, *, sequence_length: int, packing: PackingMode = "stream", progress: Progress | None = None
) -> ValidationData:
    """The fixed held-out part of all datasets that the plan's stages use: the same for every model and seed."""
    _check_packing(packing, sequence_length)
    used = [name for name in plan.datasets if any(name in stage.datasets for stage in plan.stages)]
    diets = []
    for name in used:
        _, held = _parts(plan, name, progress)
        if held.num_tokens > 1:
            diets.append(_Diet(name, held, StreamPacking(held, sequence_length, ring=False), sequence_length, key=0))
    if not diets:
        raise LMPlayError(
            f"the plan {plan.name!r} has nothing to validate on: each of its datasets is a single document; "
            "add documents"
        )
    key = _key(
        stores={diet.name: diet.part.store.key for diet in diets},
        held_out={diet.name: _held_out(plan.datasets[diet.name]) for diet in diets},
        rows=[packing, sequence_length],
    )
    return ValidationData(diets, sequence_length=sequence_length, key=key)


def _parts(plan: Plan, name: str, progress: Progress | None) -> tuple[Part, Part]:
    """(training, held out) of a dataset."""
    spec = plan.datasets[name]
    store = prepare(spec, folder=plan.folder, progress=progress)
    if spec.validation.split is None:
        return split(store, spec.validation)
    held = prepare(
        spec,
        folder=plan.folder,
        split=spec.validation.split,
        max_tokens=spec.validation.max_tokens,
        progress=progress,
    )
    return whole(store), whole(held)


def _held_out(spec: DatasetSpec) -> dict[str, Any]:
    return spec.validation.model_dump(exclude_none=True)


def _key(**what: Any) -> str:
    return hashlib.sha256(to_json(what).encode()).hexdigest()[:32]


def _empty_batch(count: int, sequence_length: int) -> Batch:
    shape = (count, sequence_length)
    return Batch(np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64))


def _check_range(first: int, count: int, rows: int) -> None:
    if min(first, count) < 0 or first + count > rows:
        raise IndexError(f"rows {first} to {first + count} are outside the {rows} rows there are")


def _check_packing(packing: str, sequence_length: int) -> None:
    if packing not in _PACKINGS:
        hint = did_you_mean(packing, _PACKINGS) or f"; known are {', '.join(_PACKINGS)}"
        raise WrongUsageError(f"there is no packing {packing!r}{hint}")
    if packing != "stream":
        raise WrongUsageError(f"the packing {packing!r} is not there yet; use 'stream'")
    if sequence_length < 1:
        raise WrongUsageError(f"a row of {sequence_length} tokens can't be; give a sequence length above zero")
