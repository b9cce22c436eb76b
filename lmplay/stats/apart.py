"""Opening the history of a run from a program that is to stay small and quick, as the workbench.

What is long and not in the side cache yet is read by a process of its own, which puts it there: reading it here would
take turns with the screen, and keep the 90 MiB of pyarrow for as long as the program runs.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lmplay.runs.layout import METRICS
from lmplay.stats.history import History
from lmplay.stats.parse import LARGE
from lmplay.stats.side_cache import SideCache


def open_history(path: Path, progress: Callable[[int], None] | None = None) -> History:
    """As `History(path, progress=progress)`. Where the other process fails, or its cache can't be written, the rows are
    read here: it only ever adds whole blocks of the side cache, which are checked against the lines when they are read.
    """
    if _unread_bytes(path) >= LARGE:
        _read_apart(path, progress)
    return History(path, progress=progress)


def _unread_bytes(path: Path) -> int:
    try:
        size = (path / METRICS).stat().st_size
    except OSError:
        return 0
    return size - SideCache(path / METRICS).stored_bytes() if size >= LARGE else 0


def _read_apart(path: Path, progress: Callable[[int], None] | None) -> None:
    command = [sys.executable, "-m", "lmplay.stats.apart", str(path)]
    quiet = subprocess.DEVNULL
    with (
        contextlib.suppress(OSError),  # it can't be started: the rows are read here
        subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if progress is not None and line.strip().isdecimal():
                progress(int(line))


def main(path: str) -> None:
    """The other process: prints up to which byte it has read; when nobody takes that any more, it ends."""
    History(Path(path), progress=lambda end: print(end, flush=True)).store()  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
