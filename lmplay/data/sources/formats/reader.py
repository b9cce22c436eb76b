"""What the readers of all formats share: a cursor, limits, and errors that name the file and the row."""

from __future__ import annotations

import codecs
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lmplay.data.sources.source import MAX_ROW_BYTES, too_large
from lmplay.data.text.documents import Row
from lmplay.utils.errors import LMPlayError, WrongUsageError

BUFFER_BYTES = 1 << 20


class Cursor(NamedTuple):
    """Where reading goes on: after `row` rows of file number `file`; `offset` is the byte after them, where known."""

    file: int = 0
    row: int = 0
    offset: int | None = None


class FileReader(ABC):
    """Rows of one file from a cursor on."""

    def __init__(
        self, path: Path, *, options: Mapping[str, Any], columns: Sequence[str], start: Cursor, alone: bool
    ) -> None:
        self.path = path
        self.cursor = start
        self.position = 0
        """Bytes of the file on disk that have been read, for progress."""
        self._options = options
        self._columns = columns
        self._alone = alone
        self._encoding = str(options.get("encoding", "utf-8"))
        try:
            codecs.lookup(self._encoding)
        except LookupError as error:
            raise WrongUsageError(
                f"args.encoding: there is no text encoding {self._encoding!r}; the usual one is utf-8"
            ) from error

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """The rows after the cursor, which moves on with each."""

    def _row(self, values: Mapping[str, Any], offset: int | None = None) -> Row:
        self.cursor = Cursor(self.cursor.file, self.cursor.row + 1, offset)
        return Row(values, str(self.path), self.cursor.row)

    def _lines_of(self, text: io.TextIOWrapper, place: Callable[[], str]) -> Iterator[str]:
        """Lines with their ends, none longer than a row may be; without a byte-order mark."""
        first = True
        while line := text.readline(MAX_ROW_BYTES + 1):
            if len(line) > MAX_ROW_BYTES:
                raise too_large(place())
            yield line.removeprefix("\ufeff") if first else line
            first = False

    @property
    def _next_place(self) -> str:
        return f"{self.path}, row {self.cursor.row + 1}"

    def _not_text(self, place: str, error: UnicodeError) -> LMPlayError:
        return LMPlayError(
            f"{place} is not {self._encoding.upper()} text ({error.reason}); "  # type: ignore[attr-defined]
            'convert it, or give its encoding in the plan, as in "args": {"encoding": "latin-1"}'
        )
