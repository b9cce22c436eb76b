"""Rows of a source become documents: parts of text, each learned or only read. Called by `lmplay.data.prepare`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lmplay.plans import Fields
from lmplay.utils.errors import LMPlayError
from lmplay.utils.names import did_you_mean


class Row(NamedTuple):
    """One row of a source, and where it stands, for messages."""

    values: Mapping[str, Any]
    file: str
    number: int  # from 1


class Part(NamedTuple):
    text: str
    learned: bool


@dataclass(frozen=True)
class Document:
    """Parts in reading order. An end-of-text token follows; it is learned when the last part is."""

    parts: tuple[Part, ...]

    @property
    def hash(self) -> int:
        """64 bits of the content, the same on every machine; decides whether the document is held out."""
        digest = hashlib.blake2b(digest_size=8)
        for part in self.parts:
            digest.update(part.text.encode("utf-8", "surrogatepass"))
            digest.update(b"\x00")
        return int.from_bytes(digest.digest(), "little")

    @property
    def size(self) -> int:
        """Characters."""
        return sum(len(part.text) for part in self.parts)


class Reader:
    """Turns rows into documents as the fields of a dataset say."""

    def __init__(self, fields: Fields) -> None:
        assert fields.text is not None
        self._text = fields.text

    @property
    def masked(self) -> bool:
        """Whether some tokens carry no loss."""
        return False

    def __call__(self, row: Row) -> Document | None:
        """The document of a row; `None` when it is empty."""
        text = _column(row, self._text)
        return Document((Part(text, True),)) if text else None


def _column(row: Row, name: str) -> str:
    if name not in row.values:
        known = [str(key) for key in row.values]
        hint = did_you_mean(name, known) or f"; it has {', '.join(known)}"
        raise LMPlayError(f"{row.file}, row {row.number}: there is no column {name!r}{hint}")
    value = row.values[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise LMPlayError(
            f"{row.file}, row {row.number}: the column {name!r} holds {type(value).__name__}, and text is needed"
        )
    return value
