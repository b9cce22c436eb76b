"""Plain text and Markdown."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

from lmplay.data.sources.compression import TYPICAL_RATIO, Opened
from lmplay.data.sources.formats.reader import BUFFER_BYTES, FileReader
from lmplay.data.sources.source import MAX_ROW_BYTES, too_large
from lmplay.data.text.documents import Row
from lmplay.utils.errors import WrongUsageError


class TextReader(FileReader):
    """A file is a document, unless `sample_by` is "line" or "paragraph" (parted by empty lines).

    A large file is cut into documents at ends of paragraphs: pieces of about 256 KB, and of a 64th of the file (4 KB at
    least) where it is the only one, so that a part of it can be held out.
    """

    def rows(self) -> Iterator[Row]:
        sample_by = self._options.get("sample_by", "document")
        with Opened(self.path) as opened:
            text = io.TextIOWrapper(io.BufferedReader(opened, BUFFER_BYTES), self._encoding, errors="strict")
            if sample_by == "document":
                pieces = self._pieces(text, self._piece_size(opened))
            elif sample_by == "line":
                pieces = (line.rstrip("\n") for line in self._lines_of(text, lambda: f"{self.path}: a line"))
            elif sample_by == "paragraph":
                pieces = self._paragraphs(text)
            else:
                raise WrongUsageError(
                    f'args.sample_by: {sample_by!r} is not known; known are "document", "paragraph" and "line"'
                )
            try:
                for piece in itertools.islice(pieces, self.cursor.row, None):
                    self.position = opened.position
                    yield self._row(dict.fromkeys(self._columns, piece))
            except UnicodeError as error:
                raise self._not_text(str(self.path), error) from error

    def _piece_size(self, opened: Opened) -> int:
        if not self._alone:
            return 1 << 18
        return min(1 << 18, max(1 << 12, opened.size * (TYPICAL_RATIO if opened.compressed else 1) // 64))

    def _pieces(self, text: io.TextIOWrapper, size: int) -> Iterator[str]:
        buffer = text.read(size)
        whole = len(buffer) < size
        if whole:
            # One document, whatever its size on disk, unless it is alone and nothing of it could be held out.
            if buffer.removeprefix("\ufeff"):
                yield buffer.removeprefix("\ufeff")
            return
        buffer = buffer.removeprefix("\ufeff")
        while buffer:
            more = text.read(size - len(buffer)) if len(buffer) < size else ""
            buffer += more
            if len(buffer) < size:
                yield buffer
                return
            end = _cut(buffer)
            yield buffer[:end]
            buffer = buffer[end:]

    def _paragraphs(self, text: io.TextIOWrapper) -> Iterator[str]:
        paragraph: list[str] = []
        size = 0
        for line in self._lines_of(text, lambda: f"{self.path}: a line"):
            if line.strip():
                paragraph.append(line)
                size += len(line)
                if size > MAX_ROW_BYTES:
                    raise too_large(f"{self.path}: a paragraph")
            elif paragraph:
                yield "".join(paragraph).rstrip("\n")
                paragraph, size = [], 0
        if paragraph:
            yield "".join(paragraph).rstrip("\n")


def _cut(buffer: str) -> int:
    """Where a piece of a text ends: after a paragraph, a line or a word, in that order, in its second half."""
    half = len(buffer) // 2
    for border in ("\n\n", "\n", " "):
        found = buffer.rfind(border, half)
        if found >= 0:
            return found + (len(border) if border != " " else 0)  # a space belongs to the word after it
    return len(buffer)
