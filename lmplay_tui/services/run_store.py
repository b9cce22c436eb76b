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
_LISTING_SHARE = 0.002
"""Of the time, that listing a folder may take which says that it hasn't changed."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The runs, newest first, and the queue, as they were at one moment."""

    runs: tuple[RunSummary, ...] = ()
    queue: tuple[Entry, ...] = ()
    problem: str = ""
    """Why the folder can't be read, in one line."""
    by_name: dict[str, RunSummary] = field(default_factory=dict)
    live: int = 0
    """How many of them a worker holds."""

    def get(self, name: str) -> RunSummary | None:
        return self.by_name.get(name)


class RunStore:
    def __init__(self, root: Path, *, clock: Callable[[], float]) -> None:
        self.root = root
        self._clock = clock
        # By name: looking Path objects up is what would cost most with ten thousand runs.
        self._signatures: dict[str, tuple[int, ...]] = {}
        self._summaries: dict[str, RunSummary] = {}
        self._live: set[str] = set()
        self._paths: dict[str, Path] = {}
        """What the folder held when it was last listed, newest first."""
        self._folder_changed: int | None = None
        self._listed = -1e9
        self._listing_pause = _LISTING_SECONDS
        self._ended: list[str] | None = None
        self._watched: list[str] = []
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
            by_name = dict(self._summaries) if self._paths else {}
            self.snapshot = Snapshot(
                runs=tuple(by_name[name] for name in self._paths),
                queue=self._queue,
                problem=problem,
                by_name=by_name,
                live=len(self._live) if self._paths else 0,
            )
        return self.snapshot

    def forget(self, path: Path) -> None:
        """Read this run anew at the next look: something about it was changed from here."""
        self._signatures.pop(path.name, None)
        self._listed = -1e9

    def _list(self) -> str:
        """List the folder when something was added or taken away, and now and then for disks that don't tell."""
        try:
            changed = self.root.stat().st_mtime_ns
        except FileNotFoundError:
            changed = 0
        except OSError as error:
            self._paths, self._ended = {}, None
            return f"the runs in {self.root} can't be listed: {error.strerror}"
        now = self._clock()
        if changed == self._folder_changed and now - self._listed < self._listing_pause:
            return self.snapshot.problem
        try:
            self._paths = {path.name: path for path in list_runs(self.root)}
        except LMPlayError as error:
            self._paths, self._ended = {}, None
            return str(error)
        self._folder_changed, self._listed, self._ended = changed, now, None
        self._listing_pause = max(_LISTING_SECONDS, (self._clock() - now) / _LISTING_SHARE)
        for gone in [name for name in self._summaries if name not in self._paths]:
            del self._summaries[gone]
            self._signatures.pop(gone, None)
            self._live.discard(gone)
        return ""

    def _look_at_runs(self) -> bool:
        if self._ended is None:
            self._ended = [name for name in self._paths if name in self._summaries and not self._is_active(name)]
            ended = set(self._ended)
            self._watched = [name for name in self._paths if name not in ended]
        if len(self._ended) > _ENDED_CHECKED:
            start = self._next_ended % len(self._ended)
            turn = self._ended[start : start + _ENDED_CHECKED]
            self._next_ended = start + _ENDED_CHECKED
        else:
            turn = self._ended
        changed = len(self._paths) != len(self.snapshot.runs)
        for name in (*self._watched, *turn):
            path = self._paths[name]
            signature = _signature(path)
            # A live run is asked for its process each time: being lost shows in no file.
            if self._signatures.get(name) == signature and not self._is_active(name):
                continue
            summary = summarize(path)
            changed = changed or summary != self._summaries.get(name)
            was_active = name in self._summaries and self._is_active(name)
            self._signatures[name], self._summaries[name] = signature, summary
            (self._live.add if summary.status.active else self._live.discard)(name)
            if not (was_active and self._is_active(name)):
                self._ended = None  # sorted anew at the next look
        return changed

    def _is_active(self, name: str) -> bool:
        state = self._summaries[name].state
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
