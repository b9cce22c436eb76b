"""Text that every CPython carries, so that a first run needs no download.

`pydocs` is the language reference of `pydoc_data.topics`, a document a topic: English prose about Python.
`stdlib` is the source of the standard library, a document a file. Both belong to the running Python: its version and
the texts' sum are part of the cache's key.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lmplay.data.batch import Progress
from lmplay.data.sources.source import Batches, batched
from lmplay.data.text.documents import Row
from lmplay.utils.errors import LMPlayError, WrongUsageError

# Folders of the library that are not its own source: tests, packages of other people, and bundled copies of them.
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled", "pydoc_data"}


class BuiltinSource:
    """`pydocs` or `stdlib`."""

    def __init__(self, name: str, *, split: str | None = None) -> None:
        if split is not None:
            raise WrongUsageError(f"validation.split: the built-in text {name!r} has no splits; leave it out")
        self.label = name
        self._name = name
        self._next = 0

    def identity(self, progress: Progress | None = None) -> dict[str, Any]:
        del progress  # it takes a tenth of a second
        return {
            "source": "builtin",
            "name": self._name,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "sha256": _sum(self._name),
        }

    def refresh(self) -> None:
        """Nothing to do: it comes with Python."""

    def needs_network(self) -> bool:
        return False

    def estimated_bytes(self) -> int:
        return sum(len(text) for _, text in _texts(self._name))

    def batches(self, cursor: int | None) -> Batches:
        self._next = cursor or 0
        return batched(self._rows(), lambda: self._next)

    def progress(self) -> tuple[str, int, int]:
        return "documents", self._next, len(_texts(self._name))

    def _rows(self) -> Iterator[Row]:
        texts = _texts(self._name)
        while self._next < len(texts):
            name, text = texts[self._next]
            self._next += 1
            yield Row({"text": text}, f"{self._name}:{name}", 1)


@cache
def _texts(name: str) -> list[tuple[str, str]]:
    return _topics() if name == "pydocs" else _library()


@cache
def _sum(name: str) -> str:
    digest = hashlib.sha256()
    for title, text in _texts(name):
        digest.update(f"{title}\x00{len(text)}\x00".encode())
        digest.update(text.encode())
    return digest.hexdigest()


def _topics() -> list[tuple[str, str]]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise LMPlayError(
            "this Python was built without pydoc_data; use the built-in text 'stdlib', or another Python"
        ) from error
    return sorted(topics.items())


def _library() -> list[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in _LEFT_OUT]  # not even looked into
        files += [
            Path(folder, name) for name in names if name.endswith(".py") and not name.startswith("_sysconfigdata")
        ]
    if not files:
        raise LMPlayError(f"the standard library has no source files in {root}; use the built-in text 'pydocs'")
    texts = [(file.relative_to(root).as_posix(), file.read_bytes().decode("utf-8", "replace")) for file in files]
    return sorted((name, text) for name, text in texts if text)
