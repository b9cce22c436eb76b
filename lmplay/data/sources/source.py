"""What every source offers: who it is, and its rows in batches that can be entered again at any border."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from lmplay.data.documents import Row

_BATCH_ROWS = 1024
_BATCH_CHARACTERS = 1 << 21

JSONValue = Any


@dataclass(frozen=True)
class RowBatch:
    """Rows, and the cursor from which the source goes on after them."""

    rows: list[Row]
    cursor: JSONValue


Batches = Iterator[RowBatch]


class Source(Protocol):
    """Rows in a fixed order. The batches after a cursor are the same whether or not the reading was interrupted."""

    label: str
    """Short name for folders and messages."""

    def identity(self) -> dict[str, JSONValue]:
        """Everything that decides the content: part of the cache's key."""

    def batches(self, cursor: JSONValue | None) -> Batches:
        """Rows from a cursor on; from the start when it is `None`."""

    def total_rows(self) -> int | None:
        """Number of rows where it is known without reading them."""


def batched(rows: Iterable[tuple[Row, JSONValue]]) -> Batches:
    """Groups rows, each with the cursor after it, into batches of a bounded number of rows and characters."""
    batch: list[Row] = []
    size = 0
    cursor: JSONValue = None
    for row, cursor in rows:
        batch.append(row)
        size += sum(len(value) for value in row.values.values() if isinstance(value, str))
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_CHARACTERS:
            yield RowBatch(batch, cursor)
            batch, size = [], 0
    if batch:
        yield RowBatch(batch, cursor)
