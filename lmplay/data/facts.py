"""What a dataset is like: lengths of documents, how they pack, what a row looks like. Called by `lmplay data show`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmplay.data.batch import IGNORED, Progress
from lmplay.data.rows.diet import Diet, DietSummary, empty_batch, open_parts
from lmplay.data.rows.packing import pack
from lmplay.data.rows.part import Part
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
    """Tokens of a row that belong together. An end of text that is only a target counts no token."""

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
    store = training.store
    decode = get_tokenizer(store.manifest.tokenizer).decode
    end = store.manifest.end_of_text
    tokens, targets = batch.tokens[0], batch.targets[0]
    size = diet.packing.size(number)
    # Where rows keep documents apart, a document's last target is its end, which is no input.
    apart = packing != "stream"
    if batch.documents is not None:
        documents = batch.documents[0].astype(np.int64)
    else:
        documents = np.cumsum(np.concatenate([[False], (tokens[:-1] == end) & (not apart)]))
    # A token is learned where it is the target of the one before it, in the same document or stream.
    learned = np.concatenate([[False], targets[:-1] != IGNORED])
    if apart:
        learned[1:] &= documents[1:] == documents[:-1]
    spans = []
    borders = (np.flatnonzero((np.diff(learned[:size]) != 0) | (np.diff(documents[:size]) != 0)) + 1).tolist()
    for start, stop in zip([0, *borders], [*borders, size], strict=True):
        document = int(documents[start])
        spans.append(Span(decode(tokens[start:stop].tolist()), bool(learned[start]), document, False, stop - start))
        if apart and targets[stop - 1] == end and (stop == size or documents[stop] != document):
            spans.append(Span(decode([end]), True, document, False, 0))
    if size < sequence_length:
        spans.append(Span("", False, int(documents[size - 1]) + 1, True, sequence_length - size))
    return spans


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
