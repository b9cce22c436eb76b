"""Opening the history of a run from a program that is to stay small and quick, as the workbench.

What is long and not in the side cache yet is read by a process of its own, which puts it there: reading it here would
take turns with the screen, and keep the 90 MiB of pyarrow for as long as the program runs.

Nothing slow is imported with this module: a reader may be at work before the program that wants it has started.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmplay.stats.history import History

_METRICS = "metrics.jsonl"
"""`lmplay.runs.layout.METRICS`, without what importing that takes."""
_WORTH_A_START = 16 << 20
"""Bytes of metrics that take longer to read than the program that is to show them takes to start."""


class Reader:
    """A process that puts the figures of the run in `path` into the side cache. It ends when nobody listens to it."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` where it can't be started."""
        self.path = path
        command = [sys.executable, "-m", "lmplay.stats.apart", str(path)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, text=True)

    def wait(self, progress: Callable[[int], None] | None = None) -> None:
        """Until it has ended, however it does; `progress` is told up to which byte it has read."""
        assert self._process.stdout is not None
        with self._process:
            for line in self._process.stdout:
                if progress is not None and line.strip().isdecimal():
                    progress(int(line))


def begin_reading(path: Path) -> Reader | None:
    """Have the run in `path` read from now on, for an `open_history` to come; None where it isn't long."""
    with contextlib.suppress(OSError):
        if (path / _METRICS).stat().st_size >= _WORTH_A_START:
            return Reader(path)
    return None


def open_history(path: Path, progress: Callable[[int], None] | None = None, *, reader: Reader | None = None) -> History:
    """As `History(path, progress=progress)`. Where the other process fails, or its cache can't be written, the rows are
    read here: it only ever adds whole blocks of the side cache, which are checked against the lines when they are read.

    `reader`: one that was begun before; it is waited for in any case.
    """
    from lmplay.stats.history import History

    if reader is None and _is_long(path):
        with contextlib.suppress(OSError):
            reader = Reader(path)
    if reader is not None:
        reader.wait(progress)
    return History(path, progress=progress)


def _is_long(path: Path) -> bool:
    """Whether there is much that is not in the side cache."""
    from lmplay.stats.parse import LARGE
    from lmplay.stats.side_cache import SideCache

    try:
        size = (path / _METRICS).stat().st_size
    except OSError:
        return False
    return size >= LARGE and size - SideCache(path / _METRICS).stored_bytes() >= LARGE


def main(path: str) -> None:
    """The other process: prints up to which byte it has read; when nobody takes that any more, it ends."""
    from lmplay.stats.history import History

    History(Path(path), progress=lambda end: print(end, flush=True)).store()  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
