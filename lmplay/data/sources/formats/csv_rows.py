"""CSV and its tab-separated kin."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator

from lmplay.data.sources.compression import Opened, plain_suffix
from lmplay.data.sources.formats.reader import BUFFER_BYTES, FileReader
from lmplay.data.sources.source import MAX_ROW_BYTES
from lmplay.data.text.documents import Row
from lmplay.utils.errors import LMPlayError, WrongUsageError


class CSVReader(FileReader):
    """Rows under a header, or under `column_names`."""

    def rows(self) -> Iterator[Row]:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
        tabs = plain_suffix(self.path) == ".tsv"
        delimiter = self._options.get("delimiter", self._options.get("sep", "\t" if tabs else ","))
        with Opened(self.path) as opened:
            text = io.TextIOWrapper(
                io.BufferedReader(opened, BUFFER_BYTES), self._encoding, errors="strict", newline=""
            )
            try:
                cells = csv.reader(
                    self._lines_of(text, lambda: self._next_place),
                    delimiter=delimiter,
                    quotechar=self._options.get("quotechar", '"'),
                    strict=True,
                )
            except TypeError as error:
                raise WrongUsageError(
                    f"args.delimiter: it and args.quotechar are single characters: {error}"
                ) from error
            try:
                names = self._options.get("column_names") or next(cells, [])
                filled = (row for row in cells if row)
                for row in itertools.islice(filled, self.cursor.row, None):
                    self.position = opened.position
                    if len(row) > len(names):
                        raise LMPlayError(
                            f"{self._next_place} (line {cells.line_num}) has {len(row)} cells, and there are "
                            f"{len(names)} columns"
                        )
                    yield self._row(dict(itertools.zip_longest(names, row)))
            except UnicodeError as error:
                raise self._not_text(self._next_place, error) from error
            except csv.Error as error:
                raise LMPlayError(f"{self._next_place} (line {cells.line_num}) is not CSV: {error}") from error
