"""All runs of a folder, looked at again and again for little: only what changed on disk is read anew.

`look()` takes a few milliseconds and is called in a thread, once a tick; what it returns never changes afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lmplay.runs import ACTIVE, RunSummary, list_runs, summarize
from lmplay.runs.layout import LABELS, RUN, STATUS
from lmplay.runs.queue import Entry, Queue
from lmplay.utils.errors import LMPlayError

_ENDED_CHECKED = 60
"""Runs that have ended are looked at so many a tick: one that goes on again is noticed within some ticks."""
_LISTING_SECONDS = 10.0
_LISTING_SHARE = 0.005
"""Of the time, that listing a folder may take which says that it hasn't changed."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The runs, newest first, and the queue, as they were at one moment."""

    runs: tuple[RunSummary, ...] = ()
    queue: tuple[Entry, ...] = ()
    problem: str = ""
    """Why the folder can't be read, in one line."""
    by_name: dict[str, RunSummary] = field(default_factory=dict)

    @property
    def live(self) -> int:
        return sum(run.status.active for run in self.runs)

    def get(self, name: str) -> RunSummary | None:
        return self.by_name.get(name)


class RunStore:
    def __init__(self, root: Path, *, clock: Callable[[], float]) -> None:
        self.root = root
        self._clock = clock
        self._signatures: dict[Path, tuple[int, ...]] = {}
        self._summaries: dict[Path, RunSummary] = {}
        self._paths: list[Path] = []
        self._folder_changed: int | None = None
        self._listed = -1e9
        self._listing_pause = _LISTING_SECONDS
        self._ended: list[Path] | None = None
        self._watched: list[Path] = []
        self._next_ended = 0
        self._queue_changed = -1
        self._queue: tuple[Entry, ...] = ()
        self.snapshot = Snapshot()

    def look(self) -> Snapshot:
        """The present state; the same object as before when nothing has changed and no run is live."""
        problem = self._list()
        changed = self._look_at_runs()
        queue_changed, queue_problem = self._look_at_queue()
        problem = problem or queue_problem
        if changed or queue_changed or problem != self.snapshot.problem:
            runs = tuple(self._summaries[path] for path in self._paths if path in self._summaries)
            self.snapshot = Snapshot(
                runs=runs, queue=self._queue, problem=problem, by_name={run.name: run for run in runs}
            )
        return self.snapshot

    def forget(self, path: Path) -> None:
        """Read this run anew at the next look: something about it was changed from here."""
        self._signatures.pop(path, None)
        self._listed = -1e9

    def _list(self) -> str:
        """List the folder when something was added or taken away, and now and then for disks that don't tell."""
        try:
            changed = self.root.stat().st_mtime_ns
        except FileNotFoundError:
            changed = 0
        except OSError as error:
            self._paths = []
            return f"the runs in {self.root} can't be listed: {error.strerror}"
        now = self._clock()
        if changed == self._folder_changed and now - self._listed < self._listing_pause:
            return self.snapshot.problem
        try:
            self._paths = list_runs(self.root)
        except LMPlayError as error:
            self._paths = []
            return str(error)
        self._folder_changed, self._listed, self._ended = changed, now, None
        self._listing_pause = max(_LISTING_SECONDS, (self._clock() - now) / _LISTING_SHARE)
        there = set(self._paths)
        for gone in [path for path in self._summaries if path not in there]:
            del self._summaries[gone]
            self._signatures.pop(gone, None)
        return ""

    def _look_at_runs(self) -> bool:
        if self._ended is None:
            self._ended = [path for path in self._paths if path in self._summaries and not self._is_active(path)]
            ended = set(self._ended)
            self._watched = [path for path in self._paths if path not in ended]
        if len(self._ended) > _ENDED_CHECKED:
            start = self._next_ended % len(self._ended)
            turn = self._ended[start : start + _ENDED_CHECKED]
            self._next_ended = start + _ENDED_CHECKED
        else:
            turn = self._ended
        changed = len(self._paths) != len(self.snapshot.runs)
        for path in (*self._watched, *turn):
            signature = _signature(path)
            # A live run is asked for its process each time: being lost shows in no file.
            if self._signatures.get(path) == signature and not self._is_active(path):
                continue
            summary = summarize(path)
            changed = changed or summary != self._summaries.get(path)
            was_active = path in self._summaries and self._is_active(path)
            self._signatures[path], self._summaries[path] = signature, summary
            if not (was_active and self._is_active(path)):
                self._ended = None  # sorted anew at the next look
        return changed

    def _is_active(self, path: Path) -> bool:
        state = self._summaries[path].state
        # A queued run's worker may have been started and died, which no file of the run tells either.
        return state in ACTIVE or state == "queued"

    def _look_at_queue(self) -> tuple[bool, str]:
        queue = Queue(self.root)
        try:
            changed = (queue.folder / "queue.json").stat().st_mtime_ns
        except OSError:
            changed = 0
        if changed == self._queue_changed:
            return False, ""
        self._queue_changed = changed
        try:
            entries = tuple(queue.entries())
        except LMPlayError as error:
            return False, str(error)
        before, self._queue = self._queue, entries
        return before != entries, ""


def _signature(path: Path) -> tuple[int, ...]:
    """Changes whenever one of the files does that a summary is made of."""
    found = []
    for name in (STATUS, RUN, LABELS):
        try:
            facts = os.stat(f"{path}/{name}")  # noqa: PTH116 - a Path object for each is what would cost here
            found += [facts.st_mtime_ns, facts.st_ino]
        except OSError:
            found += [0, 0]
    return tuple(found)
