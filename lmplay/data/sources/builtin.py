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
from functools import cached_property
from pathlib import Path
from typing import Any

from lmplay.data.documents import Row
from lmplay.data.sources.source import Batches, batched
from lmplay.utils.errors import LMPlayError

# Folders of the library that are not its own source: tests, packages of other people, and bundled copies of them.
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled", "pydoc_data"}


class BuiltinSource:
    """`pydocs` or `stdlib`."""

    def __init__(self, name: str) -> None:
        self.label = name
        self._name = name

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name, text in self._texts:
            digest.update(f"{name}\x00{len(text)}\x00".encode())
            digest.update(text.encode())
        return {
            "source": "builtin",
            "name": self._name,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "sha256": digest.hexdigest(),
        }

    def batches(self, cursor: int | None) -> Batches:
        return batched(self._rows(cursor or 0))

    def total_rows(self) -> int:
        return len(self._texts)

    def _rows(self, first: int) -> Iterator[tuple[Row, int]]:
        for index in range(first, len(self._texts)):
            name, text = self._texts[index]
            yield Row({"text": text}, f"{self._name}:{name}", 1), index + 1

    @cached_property
    def _texts(self) -> list[tuple[str, str]]:
        return _topics() if self._name == "pydocs" else _library()


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
