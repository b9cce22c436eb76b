"""The columns of a run's metrics kept in binary beside the JSON lines, so that a long run opens at once.

One file a run in lmplay's cache folder: blocks in the order of the rows. A block is appended whole and ends with a mark
that is written after the rest has reached the disk; whatever lacks the mark is not there. The file is a copy that can
be thrown away: when it doesn't fit the lines any more it is made anew.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from lmplay.stats.parse import KINDS, Columns
from lmplay.utils.files import write_atomically
from lmplay.utils.paths import cache_root

_MAGIC = b"LMHIST01"
_BLOCK = b"BLCK"
_DONE = b"DONE"
_SAMPLE = 4096


@dataclass(frozen=True, kw_only=True)
class Block:
    """The rows between two offsets of the metrics file, by kind."""

    start: int
    end: int
    tables: dict[str, Columns]


class SideCache:
    """The cache of one metrics file. Any process may extend it, one at a time; others go on without."""

    def __init__(self, metrics: Path) -> None:
        self._metrics = metrics
        folder = cache_root() / "histories"
        name = hashlib.sha256(os.fsencode(metrics.resolve())).hexdigest()[:32]
        self.path = folder / f"{name}.columns"
        self._lock = folder / f"{name}.lock"

    def load(self) -> list[Block]:
        """The blocks that fit the metrics file as it is now, mapped into memory; none when there is no usable cache."""
        try:
            with self.path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            found = _headers(content)
            if found and self._fits(found):
                return [_decode(content, header, place) for header, place in found]
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            return []  # not there, cut off, or nonsense: made anew
        return []

    def stored_bytes(self) -> int:
        """How much of the metrics file is in it."""
        stored = self.load()
        return stored[-1].end if stored else 0

    def append(self, block: Block) -> bool:
        """Add a block that follows those stored; False when that can't be: not ours to write, or another was faster."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock, timeout=0):
                if block.start == 0:
                    write_atomically(self.path, _MAGIC, durable=False)
                return self._write(block)
        except (OSError, ValueError, Timeout):
            return False

    def remove(self) -> None:
        """Forget it; made anew when next needed."""
        self.path.unlink(missing_ok=True)
        self._lock.unlink(missing_ok=True)

    def _write(self, block: Block) -> bool:
        with self.path.open("r+b") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = _headers(content)
            last, place = found[-1] if found else ({"end": 0, "bytes": 0}, len(_MAGIC) - len(_DONE))
            if last["end"] != block.start:
                return False
            end = place + last["bytes"] + len(_DONE)
            file.truncate(end)  # what a crash left unfinished
            file.seek(end)
            file.write(_encode(block, head=_sum_of(self._metrics, 0), tail=self._tail_sum(block.end)))
            file.flush()
            os.fsync(file.fileno())
            file.write(_DONE)
            return True

    def _fits(self, found: list[tuple[dict[str, Any], int]]) -> bool:
        """Whether the lines are still those the blocks were made of: their beginning, and what is before the end."""
        last = found[-1][0]
        if self._metrics.stat().st_size < last["end"]:
            return False
        return bool(last["head"] == _sum_of(self._metrics, 0) and last["tail"] == self._tail_sum(last["end"]))

    def _tail_sum(self, end: int) -> str:
        return _sum_of(self._metrics, max(0, end - _SAMPLE))


def _headers(content: mmap.mmap) -> list[tuple[dict[str, Any], int]]:
    """The header of each whole block with the place of its numbers."""
    found: list[tuple[dict[str, Any], int]] = []
    if content[: len(_MAGIC)] != _MAGIC:
        return found
    position = len(_MAGIC)
    while content[position : position + 4] == _BLOCK:
        (length,) = struct.unpack_from("<I", content, position + 4)
        place = position + 8 + length
        header = json.loads(content[position + 8 : place])
        position = place + header["bytes"]
        if content[position : position + 4] != _DONE:
            break
        found.append((header, place))
        position += 4
    return found


def _encode(block: Block, *, head: str, tail: str) -> bytes:
    """Header and numbers. A column of which all values are equal, as a learning rate often is, is one number."""
    arrays: list[bytes] = []
    place = 0
    tables: dict[str, Any] = {}
    for kind in KINDS:
        table = block.tables[kind]
        columns: dict[str, Any] = {}
        for name, array in {"/offsets": table.offsets, "/stage": table.stage, **table.values}.items():
            if len(array) and (array == array[0]).all():
                columns[name] = {"all": array[0].item()}
                continue
            columns[name] = {"at": place}
            arrays.append(array.tobytes())
            place += len(arrays[-1])
        tables[kind] = {"rows": len(table), "stages": table.stages, "columns": columns}
    facts = {"start": block.start, "end": block.end, "head": head, "tail": tail, "bytes": place, "tables": tables}
    header = json.dumps(facts).encode()
    return _BLOCK + struct.pack("<I", len(header)) + header + b"".join(arrays)


def _decode(content: mmap.mmap, header: dict[str, Any], place: int) -> Block:
    tables = {}
    for kind, table in header["tables"].items():
        columns: dict[str, Any] = {}
        for name, column in table["columns"].items():
            kept_as = np.int64 if name.startswith("/") else np.float64
            if "all" in column:
                columns[name] = np.full(table["rows"], column["all"], kept_as)
            else:
                columns[name] = np.frombuffer(content, kept_as, table["rows"], place + column["at"])
        offsets, stage = columns.pop("/offsets"), columns.pop("/stage")
        tables[kind] = Columns(offsets=offsets, stage=stage, stages=tuple(table["stages"]), values=columns)
    return Block(start=header["start"], end=header["end"], tables=tables)


def _sum_of(path: Path, place: int) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(os.pread(file.fileno(), _SAMPLE, place)).hexdigest()
