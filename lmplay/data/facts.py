"""What a dataset is like: lengths of documents, how they pack, what a row looks like. Called by `lmplay data show`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmplay.data.batch import IGNORED, Progress
from lmplay.data.diet import Diet, DietSummary, empty_batch, open_parts
from lmplay.data.packing import pack
from lmplay.data.part import Part
from lmplay.plans import PackingMode, Plan
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.tokenizer import get_tokenizer

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Lengths:
    """Tokens of documents, the end-of-text token among them."""

    mean: float
    median: int
    longest: int
    histogram: list[tuple[int, int, int]]
    """(from, up to but not including, documents): each range twice as wide as the one before."""


@dataclass(frozen=True)
class Span:
    """Tokens of a row that belong together."""

    text: str
    learned: bool
    document: int
    padding: bool
    tokens: int


@dataclass(frozen=True)
class DatasetFacts:
    """A prepared dataset."""

    name: str
    folder: str
    documents: int
    tokens: int
    learned: int
    empty: int
    held_out_documents: int
    held_out_tokens: int
    lengths: Lengths
    packings: dict[str, DietSummary]


def dataset_facts(plan: Plan, name: str, *, sequence_length: int, progress: Progress | None = None) -> DatasetFacts:
    """Facts of a dataset of a plan, which is prepared now if need be."""
    training, held = open_parts(plan, name, progress)
    manifest = training.store.manifest
    modes: tuple[PackingMode, ...] = ("stream", "document", "pad")
    return DatasetFacts(
        name=name,
        folder=str(training.store.folder),
        documents=manifest.documents,
        tokens=manifest.tokens,
        learned=manifest.learned,
        empty=manifest.empty,
        held_out_documents=held.num_documents,
        held_out_tokens=held.num_tokens,
        lengths=_lengths(training),
        packings={mode: _diet(name, training, mode, sequence_length).summary for mode in modes},
    )


def row_spans(plan: Plan, name: str, number: int, *, sequence_length: int, packing: PackingMode) -> list[Span]:
    """Row `number` of the training part in the order of the source, as stretches of equal kind."""
    training, _ = open_parts(plan, name, None)
    diet = _diet(name, training, packing, sequence_length)
    if not 0 <= number < diet.packing.num_rows:
        raise WrongUsageError(f"there is no row {number}; {name} has the rows 0 to {diet.packing.num_rows - 1:,}")
    batch = empty_batch(1, sequence_length, documents=packing == "document")
    diet.packing.fill(number, 0, batch, 0)
    tokens = batch.tokens[0]
    # A token is learned where it is the target of the one before it.
    learned = np.concatenate([[False], batch.targets[0, :-1] != IGNORED])
    padding = np.arange(sequence_length) >= diet.packing.size(number)
    if batch.documents is not None:
        documents = batch.documents[0].astype(np.int64)
    else:
        documents = np.cumsum(np.concatenate([[False], tokens[:-1] == training.store.manifest.end_of_text]))
        documents[padding] = documents.max() + 1
    tokenizer = get_tokenizer(training.store.manifest.tokenizer)
    kinds = np.stack([learned, documents, padding])
    borders = (np.flatnonzero((np.diff(kinds, axis=1) != 0).any(axis=0)) + 1).tolist()
    return [
        Span(
            text=tokenizer.decode(tokens[start:stop].tolist()),
            learned=bool(learned[start]),
            document=int(documents[start]),
            padding=bool(padding[start]),
            tokens=stop - start,
        )
        for start, stop in zip([0, *borders], [*borders, sequence_length], strict=True)
    ]


def _diet(name: str, part: Part, mode: PackingMode, sequence_length: int) -> Diet:
    return Diet(name, part, pack(part, mode, sequence_length, ring=True), sequence_length, key=0)


def _lengths(part: Part) -> Lengths:
    lengths = np.concatenate([np.diff(borders) for borders in part.document_borders(_BLOCK)])
    powers = np.bincount(np.log2(lengths).astype(np.int64))
    shortest = int(np.flatnonzero(powers)[0])
    return Lengths(
        mean=float(lengths.mean()),
        median=int(np.median(lengths)),
        longest=int(lengths.max()),
        histogram=[(1 << n, 2 << n, int(powers[n])) for n in range(shortest, powers.size)],
    )
