"""From JSON lines to columns: the rows of `metrics.jsonl` as float64 arrays, train and validate apart.

Large pieces are read as tables (see `even_lines`), several at a time on as many cores; what can't be (a torn line, a
key whose type changes) goes through Python's reader, row by row. A test holds the two equal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmplay.runs.jsonl import parse_row

Floats = NDArray[np.float64]

# Below this, importing pyarrow costs more than it saves: a tenth of a second, and 90 MiB for as long as a viewer runs.
LARGE = 2 << 20
_PIECE = 64 << 10
"""Bytes that are objects of Python at a time: as such, rows take six times the room of their text."""
KINDS = ("train", "validate")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Rows of one kind in the order of the file. Missing values and nulls are NaN.

    `offsets`: (N,) int64, of each row's first byte in the file. `stage`: (N,) int64, into `stages`; -1 for none.
    """

    offsets: NDArray[np.int64]
    stage: NDArray[np.int64]
    stages: tuple[str, ...] = ()
    values: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets)


EMPTY = Columns(offsets=np.empty(0, np.int64), stage=np.empty(0, np.int64))


def parse_chunk(data: bytes, start: int) -> dict[str, Columns]:
    """The rows in `data`, whole lines that begin at offset `start` of their file, by kind."""
    if len(data) >= LARGE:
        from lmplay.stats.even_lines import parse_even_lines  # imports pyarrow

        parsed = parse_even_lines(data, start)
        if parsed is not None:
            return parsed
    pieces = [parse_rows(piece) for piece in _pieces(data, start)]
    return {kind: concatenate([piece[kind] for piece in pieces if len(piece[kind])]) for kind in KINDS}


def concatenate(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts one after another; a column that a part lacks is NaN there."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return EMPTY
    stages = tuple(dict.fromkeys(name for part in parts for name in part.stages))
    names = dict.fromkeys(name for part in parts for name in part.values)
    return Columns(
        offsets=np.concatenate([part.offsets for part in parts]),
        stage=np.concatenate([recode(part, stages) for part in parts]),
        stages=stages,
        values={name: np.concatenate([column_of(part, name) for part in parts]) for name in names},
    )


def column_of(part: Columns, name: str) -> Floats:
    """A column of a part, or NaN in its length."""
    found = part.values.get(name)
    return np.full(len(part), math.nan) if found is None else found


def recode(part: Columns, stages: Sequence[str]) -> NDArray[np.int64]:
    """The stage of each row of a part as an index into `stages`, which holds all of the part's own."""
    # The last entry is what -1, no stage, looks up.
    codes = np.array([*(stages.index(name) for name in part.stages), -1], np.int64)
    return codes[part.stage]


def _pieces(data: bytes, start: int) -> Iterator[list[tuple[int, bytes]]]:
    """Whole lines with their offsets, so many that they are about `_PIECE` bytes."""
    place = 0
    while place < len(data):
        end = data.find(b"\n", place + _PIECE) + 1 or len(data)
        yield split_lines(data[place:end], start + place)
        place = end


def split_lines(data: bytes, start: int) -> list[tuple[int, bytes]]:
    """The lines in `data`, without their ends, each with its offset in the file."""
    lines = data.removesuffix(b"\n").split(b"\n")
    return list(zip(itertools.accumulate((len(line) + 1 for line in lines), initial=start), lines, strict=False))


def parse_rows(lines: Sequence[tuple[int, bytes]]) -> dict[str, Columns]:
    """The rows of lines, each with the offset of its first byte, one by one and by kind. What is no row is left out."""
    rows: dict[str, list[tuple[int, dict[str, Any]]]] = {kind: [] for kind in KINDS}
    for offset, line in lines:
        row = parse_row(line) if line else None
        if row is not None and (kind := row.get("kind", "train")) in KINDS:
            rows[kind].append((offset, row))
    return {kind: _columns_of(found) for kind, found in rows.items()}


def _columns_of(rows: list[tuple[int, dict[str, Any]]]) -> Columns:
    stages: dict[str, int] = {}
    stage = np.full(len(rows), -1, np.int64)
    values: dict[str, Floats] = {}
    for index, (_, row) in enumerate(rows):
        for key, value in row.items():
            if key == "stage" and isinstance(value, str):
                stage[index] = stages.setdefault(value, len(stages))
            elif isinstance(value, int | float):
                if key not in values:
                    values[key] = np.full(len(rows), math.nan)
                values[key][index] = number_of(value)
    offsets = np.fromiter((offset for offset, _ in rows), np.int64, len(rows))
    return Columns(offsets=offsets, stage=stage, stages=tuple(stages), values=values)


def number_of(value: object) -> float:
    """The value of a row as a number, as far as there is one: NaN for texts, lists and null."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer of more than 308 digits
        return math.inf if isinstance(value, int) and value > 0 else -math.inf
