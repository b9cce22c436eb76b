"""Progress of the data room in a terminal: one bar for each thing that is being done; lines now and then in a pipe.

Another program asks for it as objects, a line each (`--json --stream`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lmplay.utils.figures import format_count
from lmplay.utils.files import to_json

_LINE_EVERY_SECONDS = 10.0
_OBJECT_EVERY_SECONDS = 0.25


class _Report:
    """`report(what, done, total)`, as `lmplay.data` calls it. On standard error, since facts go to standard output."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._next_line: dict[str, float] = {}
        if sys.stderr.isatty():
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[amount]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> _Report:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        amount = f"{format_count(done)} of {format_count(total)}" if total else format_count(done)
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=total, amount=amount)
            self._bars.update(self._tasks[what], completed=done, total=total, amount=amount)
            return
        now = time.monotonic()
        if now >= self._next_line.setdefault(what, now + _LINE_EVERY_SECONDS):
            self._next_line[what] = now + _LINE_EVERY_SECONDS
            print(f"{what}: {amount}", file=sys.stderr, flush=True)  # noqa: T201


class _Stream:
    """The same as objects on standard output: {what, done, total, seconds}, where seconds count from the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._next: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now >= self._next.get(what, 0.0) or done == total:
            self._next[what] = now + _OBJECT_EVERY_SECONDS
            row = {"what": what, "done": done, "total": total, "seconds": round(now - self._start, 3)}
            print(to_json(row), flush=True)  # noqa: T201


@contextmanager
def data_progress(*, stream: bool = False) -> Iterator[Callable[[str, int, int | None], None]]:
    """A callback for `progress=` of the data room that shows itself while the block lasts."""
    if stream:
        yield _Stream()
        return
    with _Report() as report:
        yield report
