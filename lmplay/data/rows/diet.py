"""One dataset of a plan, packed into rows: what stages and validation parts are made of."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from lmplay.data.batch import Batch, Progress
from lmplay.data.rows.order import Permutation, derive_key
from lmplay.data.rows.packing import Packing
from lmplay.data.rows.part import Part, split, whole
from lmplay.data.shards.prepare import prepare
from lmplay.plans import DatasetSpec, Plan
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json
from lmplay.utils.names import did_you_mean

_PACKINGS = ("stream", "document", "pad")


@dataclass(frozen=True)
class Diet:
    """Rows of a dataset, in its order and shuffled by epoch."""

    name: str
    part: Part
    packing: Packing
    sequence_length: int
    key: int

    def fill_shuffled(self, uses: list[int], batch: Batch, rows: list[int]) -> None:
        """Write the rows that come `uses`-th, counted through all epochs, into the rows `rows` of a batch."""
        by_epoch: dict[int, list[int]] = {}
        for place, use in enumerate(uses):
            by_epoch.setdefault(use // self.packing.num_rows, []).append(place)
        for epoch, places in by_epoch.items():
            positions = [uses[place] % self.packing.num_rows for place in places]
            numbers = _permutation(self.packing.num_rows, derive_key(self.key, epoch))(positions).tolist()
            phase = derive_key(self.key, epoch, "phase") % self.sequence_length
            for place, number in zip(places, numbers, strict=True):
                self.packing.fill(number, phase, batch, rows[place])

    @cached_property
    def summary(self) -> DietSummary:
        """What an epoch of this dataset holds."""
        counts = self.packing.counts
        return DietSummary(
            dataset=self.name,
            documents=self.part.num_documents,
            rows=self.packing.num_rows,
            tokens=counts.tokens,
            targets=counts.targets,
            fill=counts.tokens / max(1, self.packing.num_rows * self.sequence_length),
            cut_documents=counts.cut_documents,
            cut_targets=counts.cut_targets,
            dropped_documents=counts.dropped_documents,
        )


@dataclass(frozen=True)
class DietSummary:
    """An epoch of one dataset in numbers."""

    dataset: str
    documents: int
    rows: int
    tokens: int
    """Positions that hold text: all but padding."""
    targets: int
    """Positions that carry loss."""
    fill: float
    """Packing efficiency: the share of positions that hold text."""
    cut_documents: int
    """Pairs and conversations whose end did not fit into a row, and the targets that were lost with it."""
    cut_targets: int
    dropped_documents: int
    """Pairs and conversations whose beginning alone fills a row."""

    @property
    def notice(self) -> str | None:
        """What a person should know: how much did not fit."""
        lost = []
        if self.cut_documents:
            lost.append(f"{self.cut_documents:,} are cut at the end of their row ({self.cut_targets:,} targets lost)")
        if self.dropped_documents:
            lost.append(f"{self.dropped_documents:,} are dropped, since their beginning fills a row")
        if not lost:
            return None
        what = f"{self.dataset}: of {self.documents:,} documents {' and '.join(lost)}"
        return f"{what}; a larger train.sequence_length keeps more"


@lru_cache(maxsize=64)
def _permutation(size: int, key: int) -> Permutation:
    return Permutation(size, key)


def open_parts(plan: Plan, name: str, progress: Progress | None) -> tuple[Part, Part]:
    """(training, held out) of a dataset of a plan, prepared now if need be."""
    spec = plan.datasets[name]
    with named_in_plan(plan, name):
        store = prepare(spec, folder=plan.folder, progress=progress)
        if spec.validation.split is None:
            return split(store, spec.validation)
        return whole(store), whole(_held_out_store(plan, spec, progress))


def open_held_out(plan: Plan, name: str, progress: Progress | None) -> Part:
    """The held-out part of a dataset, without the training part where that is another split."""
    spec = plan.datasets[name]
    if spec.validation.split is None:
        return open_parts(plan, name, progress)[1]
    with named_in_plan(plan, name):
        return whole(_held_out_store(plan, spec, progress))


@contextlib.contextmanager
def named_in_plan(plan: Plan, name: str) -> Iterator[None]:
    """Puts the place in the plan's file before what is wrong with the description of a dataset."""
    try:
        yield
    except WrongUsageError as error:
        raise WrongUsageError(f"{plan.label}: datasets.{name}.{error}") from error


def _held_out_store(plan: Plan, spec: DatasetSpec, progress: Progress | None) -> Any:
    return prepare(
        spec,
        folder=plan.folder,
        split=spec.validation.split,
        max_tokens=spec.validation.max_tokens,
        progress=progress,
    )


def empty_batch(count: int, sequence_length: int, *, documents: bool) -> Batch:
    """A batch to be filled."""
    shape = (count, sequence_length)
    return Batch(
        np.empty(shape, dtype=np.int64),
        np.empty(shape, dtype=np.int64),
        np.empty(shape, dtype=np.int32) if documents else None,
    )


def content_key(**what: Any) -> str:
    """A hash of anything that prints as JSON."""
    return hashlib.sha256(to_json(what).encode()).hexdigest()[:32]


def check_range(first: int, count: int, rows: int) -> None:
    """`IndexError` for rows that there are not."""
    if min(first, count) < 0 or first + count > rows:
        raise IndexError(f"rows {first} to {first + count} are outside the {rows} rows there are")


def check_rows(packing: str, sequence_length: int) -> None:
    """`WrongUsageError` for rows that can't be."""
    if packing not in _PACKINGS:
        hint = did_you_mean(packing, _PACKINGS) or f"; known are {', '.join(_PACKINGS)}"
        raise WrongUsageError(f"there is no packing {packing!r}{hint}")
    if sequence_length < 1:
        raise WrongUsageError(f"a row of {sequence_length} tokens can't be; give a sequence length above zero")


def check_not_empty(diet: Diet) -> None:
    """`LMPlayError` for a dataset that makes no rows."""
    if not diet.packing.num_rows:
        raise LMPlayError(
            f"the dataset {diet.name!r} fills no row of {diet.sequence_length} tokens; "
            "give a larger train.sequence_length, or more text"
        )
