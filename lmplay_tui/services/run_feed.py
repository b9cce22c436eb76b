"""One run as it grows: its figures as arrays, its events, the machine's figures, the end of its log.

`look()` reads what is new and is called in a thread; the picture that it returns never changes afterwards.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from lmplay.runs import JsonlTail, RunSummary, summarize
from lmplay.runs.follow import line_start_near_end
from lmplay.runs.layout import EVENTS, LOG, METRICS, SYSTEM
from lmplay.stats.apart import Reader, open_history
from lmplay.stats.history import History, Rows

_MOST_EVENTS = 20_000
_MOST_SYSTEM_ROWS = 20_000
_SYSTEM_BYTES = 4 << 20
_LOG_BYTES = 512 << 10
_LOG_LINES = 5_000
_ESCAPES = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f]"
)


@dataclass(frozen=True, kw_only=True)
class RunPicture:
    """What is known of a run at one moment. `number` grows with everything that was logged."""

    summary: RunSummary
    train: Rows
    validate: Rows
    events: tuple[Mapping[str, Any], ...] = ()
    system: tuple[Mapping[str, Any], ...] = ()
    log: tuple[str, ...] = ()
    number: int = 0
    figures: tuple[str, ...] = field(default=())
    """Names of all figures that were logged."""


class Feeds:
    """The feeds in use: screens that show the same run read it once."""

    def __init__(self, reader: Reader | None = None) -> None:
        """`reader`: one that is at work already, on whichever run."""
        self._used: WeakValueDictionary[Path, RunFeed] = WeakValueDictionary()
        self._reader = reader

    def of(self, path: Path) -> RunFeed:
        """The feed of the run in `path`; it lasts as long as anybody keeps it."""
        feed = self._used.get(path)
        if feed is None:
            reader = None
            if self._reader is not None and self._reader.path == path:
                reader, self._reader = self._reader, None
            feed = self._used[path] = RunFeed(path, reader)
        return feed


class RunFeed:
    """Follows the run in `path`. The first `look` may take seconds for a run of a million rows."""

    def __init__(self, path: Path, reader: Reader | None = None) -> None:
        self.path = path
        self._reader = reader
        self.reading: float | None = None
        """How much of the figures has been read, 0 to 1, while the first look goes on."""
        self._lock = threading.Lock()
        self._history: History | None = None
        self._events = JsonlTail(path / EVENTS)
        self._system: JsonlTail | None = None
        self._kept_events: deque[Mapping[str, Any]] = deque(maxlen=_MOST_EVENTS)
        self._kept_system: deque[Mapping[str, Any]] = deque(maxlen=_MOST_SYSTEM_ROWS)
        self._log = LogTail(path / LOG)
        self._number = 0
        self._last: RunPicture | None = None

    def look(self) -> RunPicture:
        """The run as it is now; of the same `number` as before when nothing was logged since."""
        with self._lock:
            return self._look()

    def _look(self) -> RunPicture:
        summary = summarize(self.path)
        if self._history is None:
            self._history, changed = self._open_history(), True
            self._system = JsonlTail(self.path / SYSTEM, offset=line_start_near_end(self.path / SYSTEM, _SYSTEM_BYTES))
        else:
            changed = self._history.refresh()
        assert self._system is not None
        for tail, kept in ((self._events, self._kept_events), (self._system, self._kept_system)):
            generation = tail.generation
            rows = tail.read()
            if tail.generation != generation:
                kept.clear()
                changed = True
            # Each row that is read has keys of its own: half of what it takes.
            kept.extend({sys.intern(key): value for key, value in row.items()} for row in rows)
            changed = changed or bool(rows)
        changed = self._log.read() or changed
        if self._last is not None and not changed:
            # The age of the last sign of life alone is no reason to draw anything.
            self._last = replace(self._last, summary=summary)
            return self._last
        self._number += 1
        train, validate = self._history.train, self._history.validate
        self._last = RunPicture(
            summary=summary,
            train=train,
            validate=validate,
            events=tuple(self._kept_events),
            system=tuple(self._kept_system),
            log=tuple(self._log.lines),
            number=self._number,
            figures=tuple(dict.fromkeys((*train, *validate))),
        )
        return self._last

    def _open_history(self) -> History:
        try:
            size = (self.path / METRICS).stat().st_size
        except OSError:
            size = 0

        def progress(end: int) -> None:
            self.reading = min(1.0, end / max(1, size))

        self.reading = 0.0
        try:
            return open_history(self.path, progress, reader=self._reader)
        finally:
            self.reading = self._reader = None


class LogTail:
    """The last lines of a text file that grows. A progress bar that rewrites its line is one line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._offset = -1
        self._inode = 0
        self._open = b""

    def read(self) -> bool:
        """Take in what was added; True when anything was."""
        try:
            with self.path.open("rb", buffering=0) as file:
                facts = os.fstat(file.fileno())
                if self._offset < 0 or facts.st_ino != self._inode or facts.st_size < self._offset:
                    self.lines.clear()
                    self._open, self._inode = b"", facts.st_ino
                    self._offset = max(0, facts.st_size - _LOG_BYTES)
                if facts.st_size == self._offset:
                    return False
                data = os.pread(file.fileno(), facts.st_size - self._offset, self._offset)
        except OSError:
            return False  # not written yet, or deleted: the picture says what it knows
        self._offset += len(data)
        *whole, last = (self._open + data).split(b"\n")
        if self._open and self.lines:
            self.lines.pop()
        self.lines.extend(_clean(line) for line in whole)
        self._open = last
        if last:
            self.lines.append(_clean(last))
        return True


def _clean(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace").rstrip("\r").rpartition("\r")[2]
    return _ESCAPES.sub("", text).replace("\x1b", "").expandtabs(4)
