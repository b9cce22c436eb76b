"""What a plan will cost: tokens, rows, steps, time and disk of each stage. Called by `lmplay plans show`.

Prepared datasets are counted; for others there is the size of their files, or what the plan says to expect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lmplay.data.rows.diet import named_in_plan
from lmplay.data.rows.stage import open_stage
from lmplay.data.shards.prepare import Place, locate
from lmplay.data.shards.store import Manifest, read_manifest
from lmplay.data.sources import open_source
from lmplay.data.text.documents import Reader
from lmplay.plans import DatasetSpec, PackingMode, Plan

_BYTES_PER_TOKEN = 4.3
"""English prose with GPT-2's vocabulary; measured on the built-in texts and on Wikipedia."""

_DISK_PER_TOKEN = 2.05
"""Two bytes a token, and a little for borders and hashes of documents; a mask is a byte more."""


@dataclass(frozen=True)
class DatasetEstimate:
    """A dataset before, or after, it is prepared."""

    name: str
    tokens: int | None
    disk: int | None
    prepared: bool


@dataclass(frozen=True)
class StageEstimate:
    """A stage before it is trained. What cannot be known yet is `None`."""

    name: str
    rows: int | None
    tokens: int | None
    steps: int | None
    seconds: float | None
    disk: int | None
    fill: float | None
    """Packing efficiency; known when all datasets are prepared."""
    exact: bool


def estimate_dataset(plan: Plan, name: str) -> DatasetEstimate:
    """What there is of a dataset, or what to expect. Asks no network and prepares nothing."""
    with named_in_plan(plan, name):
        return _estimated(plan, name)


def _estimated(plan: Plan, name: str) -> DatasetEstimate:
    spec = plan.datasets[name]
    manifests = [prepared_manifest(plan, spec)]
    if spec.validation.split is not None:
        manifests.append(prepared_manifest(plan, spec, held_out=True))
    found = [manifest for manifest in manifests if manifest is not None]
    if len(found) == len(manifests):
        return DatasetEstimate(name, found[0].tokens, sum(manifest.size for manifest in found), prepared=True)
    tokens = spec.expected_tokens
    if tokens is None:
        size = open_source(spec, columns=Reader(spec).columns, split=None, folder=plan.folder).estimated_bytes()
        tokens = round(size / _BYTES_PER_TOKEN) if size is not None else spec.max_tokens
    if tokens is not None and spec.max_tokens is not None:
        tokens = min(tokens, spec.max_tokens)
    per_token = _DISK_PER_TOKEN + Reader(spec).masked
    return DatasetEstimate(name, tokens, None if tokens is None else round(tokens * per_token), prepared=False)


def prepared_manifest(plan: Plan, spec: DatasetSpec, *, held_out: bool = False) -> Manifest | None:
    """The manifest of a dataset's store, or of its validation split's, where it is prepared."""
    place = located(plan, spec, held_out=held_out)
    return read_manifest(place.folder) if place is not None else None


def located(plan: Plan, spec: DatasetSpec, *, held_out: bool = False) -> Place | None:
    """The place of a dataset's store; `None` where a network would have to be asked."""
    split = spec.validation.split if held_out else None
    if open_source(spec, columns=Reader(spec).columns, split=split, folder=plan.folder).needs_network():
        return None
    limit = spec.validation.max_tokens if held_out else None
    return locate(spec, folder=plan.folder, split=split, max_tokens=limit)


def estimate_stage(
    plan: Plan,
    index: int,
    *,
    sequence_length: int,
    batch_size: int,
    packing: PackingMode = "stream",
    tokens_per_second: float | None = None,
) -> StageEstimate:
    """The cost of stage number `index` at these sizes, and at a measured speed."""
    stage = plan.stages[index]
    datasets = [estimate_dataset(plan, name) for name in stage.datasets]
    fill: float | None = None
    rows: int | None
    tokens: int | None
    if all(dataset.prepared for dataset in datasets):
        data = open_stage(plan, index, sequence_length=sequence_length, packing=packing)
        rows, tokens, fill = data.num_rows, data.num_tokens, data.fill
    elif stage.samples is not None:
        rows, tokens = stage.samples, stage.samples * sequence_length
    elif stage.tokens is not None:
        rows, tokens = math.ceil(stage.tokens / sequence_length), stage.tokens
    else:
        assert stage.epochs is not None
        once = _sum([dataset.tokens for dataset in datasets])
        tokens = None if once is None else round(stage.epochs * once)
        rows = None if tokens is None else math.ceil(tokens / sequence_length)
    return StageEstimate(
        name=stage.name,
        rows=rows,
        tokens=tokens,
        steps=None if rows is None else math.ceil(rows / batch_size),
        # Padding is computed too: time goes by rows.
        seconds=None if rows is None or not tokens_per_second else rows * sequence_length / tokens_per_second,
        disk=_sum([dataset.disk for dataset in datasets]),
        fill=fill,
        exact=fill is not None,
    )


def total_of(stages: Sequence[StageEstimate], datasets: Sequence[DatasetEstimate]) -> StageEstimate:
    """All stages together, and their datasets once; `None` where one of them is unknown."""
    return StageEstimate(
        name="all",
        rows=_sum([stage.rows for stage in stages]),
        tokens=_sum([stage.tokens for stage in stages]),
        steps=_sum([stage.steps for stage in stages]),
        seconds=_sum([stage.seconds for stage in stages]),
        disk=_sum([dataset.disk for dataset in datasets]),
        fill=None,
        exact=all(stage.exact for stage in stages),
    )


Number = TypeVar("Number", int, float)


def _sum(values: Sequence[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(values) else None
