"""Rows that are lines of longer documents, joined again: a row that matches a pattern begins a document.

WikiText is such a source: each row is a paragraph, and ` = Title = ` begins an article.
"""

from __future__ import annotations

import re
from typing import Any

from lmplay.data.batch import Progress
from lmplay.data.sources.source import MAX_ROW_BYTES, Batches, RowBatch, Source
from lmplay.data.text.documents import Row


class JoinedSource:
    """Another source's rows of text, joined into documents. The cursor holds the document that is being read."""

    def __init__(self, source: Source, column: str, pattern: str) -> None:
        self.label = source.label
        self._source = source
        self._column = column
        self._pattern = re.compile(pattern)

    def identity(self, progress: Progress | None = None) -> dict[str, Any]:
        return {**self._source.identity(progress), "document_start": self._pattern.pattern}

    def refresh(self) -> None:
        self._source.refresh()

    def needs_network(self) -> bool:
        return self._source.needs_network()

    def estimated_bytes(self) -> int | None:
        return self._source.estimated_bytes()

    def progress(self) -> tuple[str, int, int | None]:
        return self._source.progress()

    def batches(self, cursor: dict[str, Any] | None) -> Batches:
        pending: str = cursor["pending"] if cursor is not None else ""
        inner = cursor["source"] if cursor is not None else None
        row: Row | None = None
        for batch in self._source.batches(inner):
            joined: list[Row] = []
            for row in batch.rows:
                text = row.values.get(self._column)
                if not isinstance(text, str):
                    joined.append(row)  # the reader of documents says what is wrong with it
                    continue
                starts = self._pattern.search(text) is not None
                if pending and (starts or len(pending) + len(text) > MAX_ROW_BYTES):
                    joined.append(self._document(pending, row))
                    pending = ""
                pending += text if text.endswith("\n") else text + "\n"
            inner = batch.cursor
            yield RowBatch(joined, {"source": inner, "pending": pending})
        if pending:
            last = row or Row({}, self.label, 1)
            yield RowBatch([self._document(pending, last)], {"source": inner, "pending": ""})

    def _document(self, text: str, row: Row) -> Row:
        return Row({self._column: text}, row.file, row.number)
