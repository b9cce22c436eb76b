"""What every source offers: who it is, and its rows in batches that can be entered again at any border."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from lmplay.data.batch import Progress
from lmplay.data.text.documents import Row
from lmplay.utils.errors import LMPlayError

MAX_ROW_BYTES = 32 << 20
"""A larger row is taken for a mistake, before it fills the memory."""

_BATCH_ROWS = 1024
_BATCH_CHARACTERS = 1 << 20

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

    def identity(self, progress: Progress | None = None) -> dict[str, JSONValue]:
        """Everything that decides the content: part of the cache's key."""

    def refresh(self) -> None:
        """Forget which state of a moving source this machine has met, so that `identity` takes the newest."""

    def needs_network(self) -> bool:
        """Whether `identity` would ask another machine."""

    def estimated_bytes(self) -> int | None:
        """About how many bytes of text there are, where a look tells."""

    def batches(self, cursor: JSONValue | None) -> Batches:
        """Rows from a cursor on; from the start when it is `None`. Cursors are JSON values."""

    def progress(self) -> tuple[str, int, int | None]:
        """How far the reading has come: a unit, how many are read, and of how many where that is known."""


def batched(rows: Iterable[Row], cursor: Callable[[], JSONValue]) -> Batches:
    """Groups rows into batches of a bounded number of rows and characters.

    `cursor` is called between rows and says where the source goes on after the last row that it gave.
    """
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row_size(row)
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_CHARACTERS:
            yield RowBatch(batch, cursor())
            batch, size = [], 0
    if batch:
        yield RowBatch(batch, cursor())


def row_size(row: Row) -> int:
    """Characters of a row's text. `LMPlayError` when there are too many."""
    size = sum(len(value) for value in row.values.values() if isinstance(value, str))
    if size > MAX_ROW_BYTES:
        raise too_large(row.place, size)
    return size


def too_large(place: str, size: int | None = None) -> LMPlayError:
    """What to say of a row that is no row."""
    is_size = "has more than" if size is None else f"is {size / 2**20:.0f} MB; that is more than"
    return LMPlayError(
        f"{place} {is_size} the {MAX_ROW_BYTES >> 20} MB that a row may have; "
        'split it, or keep such texts in files of their own (source "text")'
    )
