"""JSON: an object a line, or a list of objects."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any

from lmplay.data.sources.compression import Opened
from lmplay.data.sources.formats.reader import BUFFER_BYTES, FileReader
from lmplay.data.sources.source import MAX_ROW_BYTES, too_large
from lmplay.data.text.documents import Row
from lmplay.utils.errors import LMPlayError


class JSONReader(FileReader):
    """An object a line, or a list of objects; `field` names the list inside an object."""

    def rows(self) -> Iterator[Row]:
        with Opened(self.path) as opened:
            stream: io.BufferedReader[Any] = io.BufferedReader(opened, BUFFER_BYTES)
            head = stream.peek(64)[:64].removeprefix(codecs.BOM_UTF8).lstrip()
            if "field" in self._options:
                found = self._field(stream, str(self._options["field"]))
                rows: Iterator[Row] = (self._checked(value) for value in found[self.cursor.row :])
            elif head.startswith(b"["):
                rows = self._array(stream)
            else:
                rows = self._lines(opened, stream)
            for row in rows:
                self.position = opened.position
                yield row

    def _lines(self, opened: Opened, stream: io.BufferedReader[Any]) -> Iterator[Row]:
        offset = self.cursor.offset or 0
        skipped = 0
        if not opened.compressed:
            opened.seek_plain(offset)
            stream = io.BufferedReader(opened, BUFFER_BYTES)
            skipped = self.cursor.row
        while line := stream.readline(MAX_ROW_BYTES + 1):
            if len(line) > MAX_ROW_BYTES:
                raise too_large(self._next_place)
            offset += len(line)
            if not line.strip():
                continue
            if skipped < self.cursor.row:
                skipped += 1
                continue
            try:
                value = json.loads(line.removeprefix(codecs.BOM_UTF8).decode(self._encoding))
            except UnicodeError as error:
                raise self._not_text(self._next_place, error) from error
            except json.JSONDecodeError as error:
                raise self._not_json(error) from error
            except RecursionError as error:
                raise LMPlayError(f"{self._next_place} is nested too deeply") from error
            skipped += 1
            yield self._checked(value, None if opened.compressed else offset)

    def _array(self, stream: io.BufferedReader[Any]) -> Iterator[Row]:
        """Objects of a top-level list, decoded one at a time from a buffer that grows only with a row."""
        decoder = codecs.getincrementaldecoder(self._encoding)()
        parser = json.JSONDecoder()
        buffer = ""
        position = 0
        ended = False
        number = 0
        first = True

        def more() -> None:
            nonlocal buffer, position, ended
            chunk = stream.read(max(BUFFER_BYTES, len(buffer) - position))
            ended = not chunk
            try:
                buffer = buffer[position:] + decoder.decode(chunk, final=ended)
            except UnicodeError as error:
                raise self._not_text(self._next_place, error) from error
            position = 0

        def next_sign() -> str:
            nonlocal position
            while True:
                while position < len(buffer) and buffer[position] in " \t\r\n\ufeff":
                    position += 1
                if position < len(buffer) or ended:
                    return buffer[position : position + 1]
                more()

        next_sign()
        position += 1  # the opening bracket
        while (sign := next_sign()) != "]":
            if not first:
                if sign != ",":
                    raise LMPlayError(f"{self._next_place}: a list of objects is broken here: ',' or ']' is missing")
                position += 1
                next_sign()
            first = False
            while True:
                try:
                    value, end = parser.raw_decode(buffer, position)
                    break
                except json.JSONDecodeError as error:
                    if ended:
                        raise self._not_json(error) from error
                    if len(buffer) - position > MAX_ROW_BYTES:
                        raise too_large(self._next_place) from error
                    more()
                except RecursionError as error:
                    raise LMPlayError(f"{self._next_place} is nested too deeply") from error
            position = end
            number += 1
            if number > self.cursor.row:
                yield self._checked(value)

    def _field(self, stream: io.BufferedReader[Any], field: str) -> list[Any]:
        content = stream.read(MAX_ROW_BYTES + 1)
        if len(content) > MAX_ROW_BYTES:
            raise LMPlayError(
                f"{self.path} is too large to be read whole for its field {field!r}; write it as an object a line"
            )
        try:
            found = json.loads(content.decode(self._encoding))
        except UnicodeError as error:
            raise self._not_text(str(self.path), error) from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise LMPlayError(f"{self.path} is not JSON: {error}") from error
        if not isinstance(found, dict) or not isinstance(found.get(field), list):
            raise LMPlayError(f"{self.path} is no object with a list {field!r}")
        return list(found[field])

    def _checked(self, value: Any, offset: int | None = None) -> Row:
        if not isinstance(value, dict):
            raise LMPlayError(f"{self._next_place} is {type(value).__name__}, and an object is needed")
        return self._row(value, offset)

    def _not_json(self, error: json.JSONDecodeError) -> LMPlayError:
        return LMPlayError(
            f"{self._next_place} is not JSON: {error.msg} (column {error.colno}); "
            "a file holds an object a line, or a list of objects"
        )
