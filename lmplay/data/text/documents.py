"""Rows of a source become documents: parts of text, each learned or only read. Called by `lmplay.data.shards`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from lmplay.plans import DatasetSpec
from lmplay.utils.conversation import PAIR_TEMPLATE, ROLE_NAMES, TEMPLATE_VERSION, turn_text
from lmplay.utils.errors import LMPlayError
from lmplay.utils.names import did_you_mean


class Row(NamedTuple):
    """One row of a source, and where it stands, for messages."""

    values: Mapping[str, Any]
    file: str
    number: int  # from 1

    @property
    def place(self) -> str:
        return f"{self.file}, row {self.number}"


class Part(NamedTuple):
    """A stretch of text; `ended` puts an end-of-text token after it, learned as the text is."""

    text: str
    learned: bool
    ended: bool = False


@dataclass(frozen=True)
class Document:
    """Parts in reading order, the last one ended."""

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

    def __init__(self, spec: DatasetSpec) -> None:
        self._fields = spec.fields
        self._before, self._between = (spec.template or PAIR_TEMPLATE).removesuffix("{truth}").split("{prompt}")

    @property
    def masked(self) -> bool:
        """Whether some tokens carry no loss."""
        return self._fields.text is None

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return list(self._fields.model_dump(exclude_none=True).values())

    @property
    def template(self) -> str | None:
        """What decides how columns become text, beside the columns: part of the cache's key."""
        if self._fields.messages is not None:
            return f"conversation {TEMPLATE_VERSION}"
        return None if self._fields.text is not None else f"{self._before}{{prompt}}{self._between}{{truth}}"

    def __call__(self, row: Row) -> Document | None:
        """The document of a row; `None` when there is nothing in it to learn."""
        if self._fields.text is not None:
            text = _text(row, self._fields.text)
            return Document((Part(text, learned=True, ended=True),)) if text else None
        if self._fields.messages is not None:
            return _conversation(row, self._fields.messages)
        assert self._fields.prompt is not None
        assert self._fields.truth is not None
        prompt, truth = _text(row, self._fields.prompt), _text(row, self._fields.truth)
        if not truth:
            return None
        read = f"{self._before}{prompt}{self._between}"
        return Document((Part(read, learned=False), Part(truth, learned=True, ended=True)))


def _conversation(row: Row, column: str) -> Document | None:
    turns = _value(row, column)
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except json.JSONDecodeError:
            _refuse(row, column, "a list of {role, content} is needed, and this is text")
    if turns is None:
        return None
    if not isinstance(turns, Sequence) or isinstance(turns, str | bytes):
        _refuse(row, column, f"a list of {{role, content}} is needed, and this is {type(turns).__name__}")
    parts: list[Part] = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
            _refuse(row, column, f"turn {number} is no object with `role` and `content`")
        role, content = turn["role"], turn.get("content")
        if role not in ROLE_NAMES:
            hint = did_you_mean(role, ROLE_NAMES) or f"; known are {', '.join(ROLE_NAMES)}"
            _refuse(row, column, f"turn {number} has the role {role!r}{hint}")
        if not isinstance(content, str):
            _refuse(row, column, f"the content of turn {number} is {type(content).__name__}, and text is needed")
        read, learned = turn_text(role, content)
        parts.append(Part(read, learned=False))
        if learned:
            parts.append(Part(learned, learned=True, ended=True))
    if not any(part.learned for part in parts):
        return None
    if not parts[-1].ended:  # a conversation that breaks off with a question
        parts[-1] = parts[-1]._replace(ended=True)
    return Document(tuple(parts))


def _text(row: Row, name: str) -> str:
    value = _value(row, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(row, name, f"text is needed, and this is {type(value).__name__}")
    return value


def _value(row: Row, name: str) -> Any:
    if name not in row.values:
        raise LMPlayError(f"{row.place}: {no_column(name, [str(key) for key in row.values])}")
    return row.values[name]


def no_column(name: str, known: Sequence[str]) -> str:
    """What to say of a column that is not there."""
    hint = did_you_mean(name, known) or f"; there are {', '.join(known) or 'none at all'}"
    return f"there is no column {name!r}{hint}"


def _refuse(row: Row, column: str, message: str) -> NoReturn:
    raise LMPlayError(f"{row.place}, column {column!r}: {message}")
