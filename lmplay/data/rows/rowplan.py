"""Which pieces of which documents make each row, for the packings that keep documents apart. Called by `packing.py`.

`document`: first-fit decreasing of pieces into rows, in blocks of pieces, so that planning needs little memory and a
row's pieces lie near each other on the disk. `pad`: one piece a row.

A text longer than a row goes on in another row. A document of which only parts are learned (a prompt and its truth, a
conversation) is cut at the row's end instead, since its rest would stand without its beginning; what is cut off is
counted, and where nothing learned is left the document is dropped.

Plans are made once, written beside the token stores and memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lmplay.data.rows.first_fit import first_fit_decreasing
from lmplay.data.rows.part import Part
from lmplay.data.shards.disk import disk_errors
from lmplay.utils.files import write_atomically
from lmplay.utils.paths import cache_root

_VERSION = 1
_BLOCK = 1 << 16
"""Pieces that are packed together, and documents that are looked at together."""

_ABOUT = "plan.json"

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """What rows hold, and what had to be left out of them."""

    tokens: int = 0
    """Inputs that are not padding."""
    targets: int = 0
    """Targets that carry loss."""
    cut_documents: int = 0
    """Documents whose end did not fit into a row."""
    cut_targets: int = 0
    """Targets in these ends."""
    dropped_documents: int = 0
    """Documents of which nothing learned fits into a row."""

    def __add__(self, other: Counts) -> Counts:
        ours, theirs = asdict(self), asdict(other)
        return Counts(**{name: ours[name] + theirs[name] for name in ours})


class RowPlan(NamedTuple):
    """Row i has the pieces j from `rows[i]` to `rows[i + 1]`: `lengths[j]` inputs from `starts[j]` of the part."""

    rows: Integers
    starts: Integers
    lengths: Integers
    counts: Counts


class _Pieces(NamedTuple):
    starts: Integers
    lengths: Integers


def packings_folder() -> Path:
    return cache_root() / "packings"


def row_plan(part: Part, mode: Literal["document", "pad"], sequence_length: int) -> RowPlan:
    """The plan of a part; read where it was made before."""
    what = [_VERSION, _BLOCK, part.key, mode, sequence_length]
    folder = packings_folder() / hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]
    found = _read(folder)
    if found is None:
        with disk_errors():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as making:
                _make(part, mode, sequence_length, Path(making))
                folder.mkdir(exist_ok=True)
                for name in ("rows", "starts", "lengths", _ABOUT):  # the last makes it a plan
                    Path(making, name).replace(folder / name)
        found = _read(folder)
        assert found is not None
    return found


def _make(part: Part, mode: str, sequence_length: int, folder: Path) -> None:
    counts = Counts()
    num_pieces = num_rows = 0
    with (
        (folder / "rows").open("wb") as rows,
        (folder / "starts").open("wb") as starts,
        (folder / "lengths").open("wb") as lengths,
    ):
        rows.write(np.zeros(1, dtype=np.int64).tobytes())
        for pieces, block_counts in _blocks(part, sequence_length):
            counts += block_counts
            row_of = np.arange(pieces.lengths.size)
            if mode == "document":
                row_of = first_fit_decreasing(pieces.lengths, sequence_length)
            order = np.argsort(row_of, kind="stable")
            borders = np.cumsum(np.bincount(row_of)) + num_pieces
            rows.write(borders.astype(np.int64).tobytes())
            starts.write(pieces.starts[order].tobytes())
            lengths.write(pieces.lengths[order].tobytes())
            num_pieces += pieces.lengths.size
            num_rows += borders.size
    about = {"store": part.store.folder.name, "pieces": num_pieces, "rows": num_rows, "counts": asdict(counts)}
    write_atomically(folder / _ABOUT, json.dumps(about), durable=False)


def _read(folder: Path) -> RowPlan | None:
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        counts, pieces = Counts(**about["counts"]), about["pieces"]
        if not pieces:
            nothing = np.zeros(0, dtype=np.int64)
            return RowPlan(np.zeros(1, dtype=np.int64), nothing, nothing, counts)
        return RowPlan(
            np.memmap(folder / "rows", np.int64, "r", shape=(about["rows"] + 1,)),
            np.memmap(folder / "starts", np.int64, "r", shape=(pieces,)),
            np.memmap(folder / "lengths", np.int64, "r", shape=(pieces,)),
            counts,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _blocks(part: Part, sequence_length: int) -> Iterator[tuple[_Pieces, Counts]]:
    """Pieces of all documents in their order, `_BLOCK` at a time, with the counts of what came to the pieces."""
    nothing = _Pieces(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    waiting, counts = nothing, Counts()
    for borders in part.document_borders(_BLOCK):
        pieces, more = _pieces(part, borders, sequence_length)
        counts += more
        waiting = _Pieces(*(np.concatenate(pair) for pair in zip(waiting, pieces, strict=True)))
        while waiting.starts.size >= _BLOCK:
            yield _Pieces(*(array[:_BLOCK] for array in waiting)), counts
            waiting, counts = _Pieces(*(array[_BLOCK:] for array in waiting)), Counts()
    if waiting.starts.size or counts != Counts():
        yield waiting, counts


def _pieces(part: Part, borders: Integers, sequence_length: int) -> tuple[_Pieces, Counts]:
    """The pieces of some documents. A document of n + 1 tokens has n inputs and n targets."""
    starts, inputs = borders[:-1], np.diff(borders) - 1
    starts, inputs = starts[inputs > 0], inputs[inputs > 0]
    if not part.store.masked:
        per_document = -(-inputs // sequence_length)
        offsets = _count_up(per_document) * sequence_length
        lengths = np.minimum(np.repeat(inputs, per_document) - offsets, sequence_length)
        total = int(lengths.sum())
        return _Pieces(np.repeat(starts, per_document) + offsets, lengths), Counts(tokens=total, targets=total)
    kept = np.minimum(inputs, sequence_length)
    learned_all = part.count_learned(starts + 1, starts + 1 + inputs)
    learned = part.count_learned(starts + 1, starts + 1 + kept)
    useful = learned > 0
    counts = Counts(
        tokens=int(kept[useful].sum()),
        targets=int(learned.sum()),
        cut_documents=int(np.count_nonzero(useful & (learned < learned_all))),
        cut_targets=int((learned_all - learned)[useful].sum()),
        dropped_documents=int(np.count_nonzero(~useful)),
    )
    return _Pieces(starts[useful], kept[useful]), counts


def _count_up(counts: Integers) -> Integers:
    """0 to n - 1 for each n of `counts`, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)
