"""JSON lines with one writer and any number of readers: whole rows in, whole rows out.

The writer appends each row (or several at once) with a single `write` on an append-only descriptor. A reader keeps the
offset behind the last whole line, so a row that is being written, or was torn by a crash, is simply not there yet.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmplay.utils.files import to_json

_CHUNK = 1 << 20
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class JsonlAppender:
    """The writing end of one file. The caller makes sure that there is only one (a run's writer holds its lock)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._mend()

    def _mend(self) -> None:
        """End the line that a crash tore, so that the next row starts on a line of its own."""
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            self._write(b"\n")

    def append(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Write `rows` in one call; returns the file's size before it. On a full disk nothing of them stays behind."""
        data = b"".join(to_json(_plain(row)).encode() + b"\n" for row in rows)
        return self._write(data) if data else self.size()

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes) -> int:
        before = self.size()
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            self._cut(before)
            raise
        if written != len(data):
            self._cut(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        return before

    def _cut(self, size: int) -> None:
        if self.size() > size:
            os.ftruncate(self._descriptor, size)


class JsonlTail:
    """The reading end: each `read` returns the rows that were completed since the last one.

    `generation` counts how often the file was found replaced or cut back: then reading begins again at its start and a
    consumer that keeps rows must drop them. `skipped` counts lines that are no JSON object. A file that isn't there yet
    is an empty one.
    """

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.generation = 0
        self.skipped = 0
        self._inode: int | None = None

    def read(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Rows completed since the last call, oldest first; at most about `limit` bytes of them when given."""
        return [row for _, row in self.read_with_offsets(limit)]

    def read_with_offsets(self, limit: int | None = None) -> list[tuple[int, dict[str, Any]]]:
        """As `read`, each row with the offset of its first byte in the file."""
        rows: list[tuple[int, dict[str, Any]]] = []
        for start, lines in self.read_lines(limit):
            position = start
            for line in lines:
                row = parse_row(line)
                if row is not None:
                    rows.append((position, row))
                elif line.strip():
                    self.skipped += 1
                position += len(line) + 1
        return rows

    def read_lines(self, limit: int | None = None) -> Iterator[tuple[int, list[bytes]]]:
        """Chunks of whole lines as (offset of the first, lines without ends); the offset moves as they are taken."""
        for start, data in self.read_chunks(limit):
            yield start, data[:-1].split(b"\n")

    def read_chunks(self, limit: int | None = None, *, size: int = _CHUNK) -> Iterator[tuple[int, bytes]]:
        """As `read_lines`, the lines of a chunk in one piece, each with its end.

        Memory stays within `size` bytes, however long the file (and within the longest line).
        """
        try:
            file = self.path.open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError):
            if self._inode is not None:
                self._restart(None)
            return
        with file:
            stat = os.fstat(file.fileno())
            replaced = self._inode is not None and stat.st_ino != self._inode
            if replaced or stat.st_size < self.offset or not self._follows_line(file.fileno()):
                self._restart(stat.st_ino)
            self._inode = stat.st_ino
            taken = 0
            if limit is not None:
                size = max(1, min(size, limit))
            # No more room than there is to read: a run is looked at twice a second, for a row or none.
            while (left := stat.st_size - self.offset) > 0 and (limit is None or taken < limit):
                data = os.pread(file.fileno(), min(size, left), self.offset)
                end = data.rfind(b"\n") + 1
                if end:
                    start, self.offset = self.offset, self.offset + end
                    taken += end
                    yield start, data[:end]
                if len(data) < size:
                    return
                if not end:
                    size *= 2  # a line longer than a chunk

    def _follows_line(self, descriptor: int) -> bool:
        # A file cut back and grown again past the offset: most probably no line ends just before it.
        return self.offset == 0 or os.pread(descriptor, 1, self.offset - 1) == b"\n"

    def _restart(self, inode: int | None) -> None:
        self.offset = 0
        self.generation += 1
        self._inode = inode


def read_last_rows(path: Path, count: int, *, block: int = 1 << 16) -> list[dict[str, Any]]:
    """The newest `count` rows, oldest of them first, read from the end of the file backwards."""
    try:
        file = path.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with file:
        position = os.fstat(file.fileno()).st_size
        data = b""
        while position > 0:
            step = min(block, position)
            position -= step
            data = os.pread(file.fileno(), step, position) + data
            lines = data[: data.rfind(b"\n") + 1].split(b"\n")
            # The first line of the block may have begun before it, unless this is the file's start.
            rows = [row for line in (lines if position == 0 else lines[1:]) if (row := parse_row(line)) is not None]
            if len(rows) >= count or position == 0:
                return rows[-count:] if count else []
            block *= 2
    return []


def parse_row(line: bytes) -> dict[str, Any] | None:
    """The object of one line, with "NaN" and infinities back as numbers; `None` for a line that is no object."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    if b'NaN"' in line or b'Infinity"' in line:
        row = {key: _SPECIAL.get(value, value) if isinstance(value, str) else value for key, value in row.items()}
    return row


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of array libraries as Python's own: as text they would be lost to readers."""
    return {key: value.item() if callable(getattr(value, "item", None)) else value for key, value in row.items()}
