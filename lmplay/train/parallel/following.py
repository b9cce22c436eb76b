"""What a process that is not the first of its run writes into the run's folder: nothing but its own prints."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lmplay.runs.layout import LOG
from lmplay.train.keep.disk import PatientLog


class SilentWriter:
    """Stands where the first process has its `RunWriter`."""

    earlier_requests: frozenset[str] = frozenset()

    def __init__(self, path: Path) -> None:
        self.path = path

    def metrics(self, *rows: Mapping[str, Any]) -> None:
        """Nothing."""

    def event(self, kind: str, **fields: Any) -> None:
        """Nothing."""

    def status(self, **fields: Any) -> None:
        """Nothing."""

    def resumed(self, step: int, **fields: Any) -> None:
        """Nothing."""


class SilentLog(PatientLog):
    """A log on a `SilentWriter`: it holds no room on the disk, and waits for none."""

    def __init__(self, path: Path) -> None:
        self.impatient = self._log = SilentWriter(path)

    def wait_for_room(self, shortage: Callable[[], str | None]) -> None:
        """Not waited for here: the first process does."""

    def _patiently(self, write: Callable[[], None]) -> None:
        write()


class _Prefixed(io.TextIOBase):
    """Whole lines into `worker.log`, each behind the number of its process."""

    def __init__(self, log: Path, rank: int) -> None:
        self._file = log.open("ab", buffering=0)  # one write a line: lines of several processes don't mix
        self._prefix = f"[{rank}] "
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._file.write(f"{self._prefix}{line}\n".encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Lines are written at once, the rest with the next line."""

    def writable(self) -> bool:
        return True


def print_into_log(folder: Path, rank: int) -> None:
    """From now on what this process prints is in the run's `worker.log`, each line with `[rank]` before it."""
    sys.stdout = sys.stderr = _Prefixed(folder / LOG, rank)
