"""Many lines at once: those of one shape, which is what a worker writes, are read as a table of words by pyarrow.

Without its commas and braces, `{"kind": "train", "step": 7, "loss": 3.5}` is a row of words with a blank between them,
every other one a key. Each claim of that is checked, for every line: that the words are as many, that the keys are the
same, that nothing but commas and braces of the shape was left out. Lines of another shape are read in a turn of their
own, and what is left then one by one. It takes about half of the computing of pyarrow's own reader of JSON.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow
import pyarrow.csv
from numpy.typing import NDArray

from lmplay.runs.jsonl import parse_row
from lmplay.stats.parse import KINDS, Columns, Floats, concatenate, number_of, parse_rows

_LEFT_OUT = b",{}"
_SHAPES = 4
"""Turns; each reads the lines that have the most usual shape among those that are left."""
_FEW = 64
"""Lines that are not worth a turn."""
_SAMPLES = 9
_NO_NUMBER = ("null", '"NaN"', '"Infinity"', '"-Infinity"', "true", "false")
"""What may stand where other lines have a number. The first two are NaN there; a line with another of them is read
one by one."""
_NOT_NAN = re.compile(rb'Infinity"|true|false')


@dataclass(frozen=True)
class _Shape:
    keys: tuple[bytes, ...]
    """As they stand in the line, with colon."""
    numeric: tuple[bool, ...]


def parse_even_lines(data: bytes, start: int) -> dict[str, Columns] | None:
    """The rows in `data`, whole lines from offset `start` of their file, by kind; None where that can't be done."""
    if b"\r" in data:
        return None  # for pyarrow it ends a line
    offsets = np.concatenate(([0], _ends(data)[:-1] + 1)) + start
    parts: dict[str, list[Columns]] = {kind: [] for kind in KINDS}
    for _ in range(_SHAPES):
        if len(offsets) <= _FEW:
            break
        found = _read_shape(data, offsets)
        if found is None:
            return None
        rows, data, offsets = found
        for kind, columns in rows.items():
            parts[kind].append(columns)
    one_by_one = list(zip(offsets.tolist(), data.split(b"\n"), strict=False))
    for first in range(0, len(one_by_one), _FEW):
        for kind, columns in parse_rows(one_by_one[first : first + _FEW]).items():
            parts[kind].append(columns)
    return {kind: _in_order([part for part in found if len(part)]) for kind, found in parts.items()}


def _read_shape(data: bytes, offsets: NDArray[np.int64]) -> tuple[dict[str, Columns], bytes, NDArray[np.int64]] | None:
    """(the rows of the most usual shape, all other lines, their offsets). None when a line isn't what it seems."""
    ends = _ends(data)
    starts = np.concatenate(([0], ends[:-1] + 1))
    shape = _usual_shape([data[starts[at] : ends[at]] for at in np.linspace(0, len(ends) - 1, _SAMPLES).astype(int)])
    if shape is None:
        return None
    words = data.translate(None, _LEFT_OUT)
    count = len(shape.keys)
    odd: list[int] = []
    try:
        table = _read_words(words, shape, odd)
    except pyarrow.ArrowInvalid:
        return None  # something else where the usual line has a number
    is_even = np.ones(len(offsets), np.bool_)
    is_even[odd] = False
    if table.num_rows != int(is_even.sum()):
        return None
    octets = np.frombuffer(data, np.uint8)
    fits = (octets[starts[is_even]] == ord("{")) & (octets[ends[is_even] - 1] == ord("}"))
    for index, key in enumerate(shape.keys):
        column = table[f"key{index}"].chunk(0)
        known = column.dictionary.to_pylist()
        if known != [key]:
            fits &= _buffer(column.indices, np.int32) == known.index(key)
    lines = np.flatnonzero(is_even)
    for place in np.flatnonzero(shape.numeric):
        column = table[f"value{place}"].chunk(0)
        if column.null_count:
            unclear = np.flatnonzero(~_known(column) & fits)
            fits[[row for row in unclear if _NOT_NAN.search(data, starts[lines[row]], ends[lines[row]])]] = False
    is_even[lines[~fits]] = False
    others = np.flatnonzero(~is_even)
    rest = b"".join(data[starts[index] : ends[index] + 1] for index in others)
    left_out = len(data) - len(words) - (len(rest) - len(rest.translate(None, _LEFT_OUT)))
    if left_out != len(offsets[is_even]) * (count + 1):
        return None  # a comma or a brace within a text
    rows = _rows_of(table, shape, None if fits.all() else fits, offsets[is_even])
    return None if rows is None else (rows, rest, offsets[others])


def _ends(data: bytes) -> NDArray[np.int64]:
    return np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))


def _usual_shape(lines: list[bytes]) -> _Shape | None:
    """The shape that most of these lines have, of those that can be read as words."""
    found = Counter(shape for line in lines if (shape := _shape_of(line)) is not None)
    return found.most_common(1)[0][0] if found else None


def _shape_of(line: bytes) -> _Shape | None:
    row, words = parse_row(line), line.translate(None, _LEFT_OUT).split(b" ")
    keys = words[::2]
    if not row or len(words) != 2 * len(row) or not all(key.endswith(b":") for key in keys):
        return None
    try:
        if [json.loads(key[:-1]) for key in keys] != list(row):
            return None
    except ValueError:
        return None
    numeric = (
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in row.values()
    )
    return _Shape(tuple(keys), tuple(numeric))


def _read_words(words: bytes, shape: _Shape, odd: list[int]) -> Any:
    """A table with a column for each key and each value; `odd` gets the places of lines of more or fewer words."""

    def skip(row: Any) -> Literal["skip"]:
        odd.append(row.number - 1)
        return "skip"

    few = pyarrow.dictionary(pyarrow.int32(), pyarrow.binary())
    types: dict[str, Any] = {}
    for index, numeric in enumerate(shape.numeric):
        types |= {f"key{index}": few, f"value{index}": pyarrow.float64() if numeric else few}
    return pyarrow.csv.read_csv(
        pyarrow.BufferReader(words),
        # In one block, so that a column has one list of its words.
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=len(words) + 1, column_names=list(types)),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=" ", quote_char=False, ignore_empty_lines=False, invalid_row_handler=skip
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types, check_utf8=False, null_values=list(_NO_NUMBER), strings_can_be_null=False
        ),
    )


def _rows_of(
    table: Any, shape: _Shape, fits: NDArray[np.bool_] | None, offsets: NDArray[np.int64]
) -> dict[str, Columns] | None:
    """The rows by kind; None where a word is no JSON."""
    values: dict[str, Floats] = {}
    texts: dict[str, tuple[NDArray[np.int64], list[Any]]] = {}
    for index, (key, numeric) in enumerate(zip(shape.keys, shape.numeric, strict=True)):
        name, column = json.loads(key[:-1]), table[f"value{index}"].chunk(0)
        if numeric:
            array = _buffer(column, np.float64)
            array = np.where(_known(column), array, np.nan) if column.null_count else array
            values[name] = array if fits is None else array[fits]
            continue
        known = [parse_row(b'{"word": %b}' % word) for word in column.dictionary.to_pylist()]
        codes = _buffer(column.indices, np.int32).astype(np.int64)
        decoded = [row["word"] for row in known if row is not None]
        if len(decoded) < len(known):
            return None
        texts[name] = codes if fits is None else codes[fits], decoded
        values[name] = np.array([number_of(value) for value in decoded])[texts[name][0]]
    all_same = np.zeros(len(offsets), np.int64)
    stage_codes, stage_words = texts.get("stage", (all_same, [None]))
    stages = tuple(word for word in stage_words if isinstance(word, str))
    stage = np.array([stages.index(word) if word in stages else -1 for word in stage_words], np.int64)[stage_codes]
    kind_codes, kind_words = texts.get("kind", (all_same, [None if "kind" in values else KINDS[0]]))
    found: dict[str, Columns] = {}
    for kind in KINDS:
        chosen = np.array([word == kind for word in kind_words])[kind_codes]
        whole: Any = slice(None) if chosen.all() else chosen
        cut = {name: column[whole] for name, column in values.items()}
        known_values = {name: column for name, column in cut.items() if not np.isnan(column).all()}
        found[kind] = Columns(offsets=offsets[whole], stage=stage[whole], stages=stages, values=known_values)
    return found


def _buffer(column: Any, kind: Any) -> NDArray[Any]:
    """What pyarrow keeps of a column, nulls being anything: its own conversions import pandas, in 0.3 s."""
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * np.dtype(kind).itemsize)


def _known(column: Any) -> NDArray[np.bool_]:
    """(N,), where a column that has nulls has none."""
    bits = np.unpackbits(np.frombuffer(column.buffers()[0], np.uint8), bitorder="little")
    return bits[column.offset : column.offset + len(column)].astype(np.bool_)


def _in_order(parts: list[Columns]) -> Columns:
    """Several parts as one, its rows in the order of the file."""
    whole = concatenate(parts)
    if len(parts) < 2:
        return whole
    order = np.argsort(whole.offsets)
    return Columns(
        offsets=whole.offsets[order],
        stage=whole.stage[order],
        stages=whole.stages,
        values={name: column[order] for name, column in whole.values.items()},
    )
