"""From JSON lines to columns: the rows of `metrics.jsonl` as float64 arrays, train and validate apart.

Large pieces go through pyarrow's reader, several at a time on as many cores; what that can't take (a torn line, a key
whose type changes) goes through Python's own, row by row. A test holds the two equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmplay.runs.jsonl import parse_row

Floats = NDArray[np.float64]

# Below this, importing pyarrow costs more than it saves: a tenth of a second, and 90 MiB for as long as a viewer runs.
_LARGE = 2 << 20
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
    if len(data) >= _LARGE:
        parsed = _parse_with_arrow(data, start)
        if parsed is not None:
            return parsed
    pieces = [_parse_rows(piece, place) for place, piece in _pieces(data, start)]
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


def _pieces(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines with the offset of the first, so many that they are about `_PIECE` bytes."""
    place = 0
    while place < len(data):
        end = data.find(b"\n", place + _PIECE) + 1 or len(data)
        yield start + place, data[place:end]
        place = end


def _parse_rows(data: bytes, start: int) -> dict[str, Columns]:
    rows: dict[str, list[tuple[int, dict[str, Any]]]] = {kind: [] for kind in KINDS}
    position = start
    for line in data.split(b"\n"):
        row = parse_row(line) if line else None
        if row is not None and (kind := row.get("kind", "train")) in rows:
            rows[kind].append((position, row))
        position += len(line) + 1
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
                values[key][index] = _float(value)
    offsets = np.fromiter((offset for offset, _ in rows), np.int64, len(rows))
    return Columns(offsets=offsets, stage=stage, stages=tuple(stages), values=values)


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf if value > 0 else -math.inf


def _parse_with_arrow(data: bytes, start: int) -> dict[str, Columns] | None:
    """None when pyarrow can't take this piece as it is."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.json

    # A missing value is NaN anyway; infinities are left to the careful reader.
    plain = data.replace(b'"NaN"', b"null") if b'"NaN"' in data else data
    try:
        table = pyarrow.json.read_json(
            pyarrow.BufferReader(plain), read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=1 << 20)
        )
    except pyarrow.ArrowInvalid:
        return None
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    if len(ends) != table.num_rows:
        return None
    offsets = np.concatenate(([0], ends[:-1] + 1)) + start
    kind_codes, kinds = _codes(table, "kind", len(offsets))
    stage_codes, stages = _codes(table, "stage", len(offsets))
    numbers: dict[str, Floats] = {}
    for name in table.column_names:
        kind = table.schema.field(name).type
        if pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_boolean(kind):
            column = table[name] if not pyarrow.types.is_boolean(kind) else table[name].cast(pyarrow.int8())
            numbers[name] = pyarrow.compute.cast(column, pyarrow.float64(), safe=False).to_numpy()
        elif name not in ("kind", "stage") and not _is_text(table[name], pyarrow):
            return None
    found: dict[str, Columns] = {}
    for kind_name in KINDS:
        wanted = kinds.index(kind_name) if kind_name in kinds else None
        chosen = kind_codes == (len(kinds) if wanted is None else wanted)
        if kind_name == "train":
            chosen |= kind_codes == -1
        whole = bool(chosen.all())
        values = {name: column if whole else column[chosen] for name, column in numbers.items()}
        found[kind_name] = Columns(
            offsets=offsets if whole else offsets[chosen],
            stage=stage_codes if whole else stage_codes[chosen],
            stages=stages,
            values={name: column for name, column in values.items() if not np.isnan(column).all()},
        )
    return found


def _is_text(column: Any, pyarrow: Any) -> bool:
    """Whether leaving out a column that isn't numeric loses no number, as one with the spelled-out infinities would."""
    if not pyarrow.types.is_string(column.type):
        return True
    spelled = pyarrow.compute.is_in(column, value_set=pyarrow.array(["Infinity", "-Infinity"]))
    return not pyarrow.compute.any(spelled).as_py()


def _codes(table: Any, name: str, rows: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """A text column as (index into names, names); -1 where there is no text."""
    if name not in table.column_names or str(table.schema.field(name).type) != "string":
        return np.full(rows, -1, np.int64), ()
    encoded = table[name].combine_chunks().dictionary_encode()
    names: Iterable[str] = encoded.dictionary.to_pylist()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), tuple(names)
