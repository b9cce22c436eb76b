"""Runs from scripts and notebooks: `Run.open("last")`, its figures as arrays, following it, steering it.

from lmplay.runs import Run

run = Run.open("gpt2ish-20250101-120000-1a2b")
train = run.metrics()                       # {"step": array, "loss": array, ...}
frame = run.metrics("validate", frame=True) # a pandas data frame
for update in run.follow():                 # until the run ends
    for row in update.metrics:
        ...
run.control("set", {"train.lr": 1e-4})
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from lmplay.runs.control import request
from lmplay.runs.follow import RunFollower, Update
from lmplay.runs.jsonl import JsonlTail
from lmplay.runs.layout import EVENTS, SYSTEM, read_run_file
from lmplay.runs.resolve import find_checkpoint, list_checkpoints, resolve_run
from lmplay.runs.settings import flat_config
from lmplay.runs.status import Status, read_status
from lmplay.runs.summary import RunSummary, summarize
from lmplay.utils.errors import LMPlayError


class Run:
    """One run, read from its folder whenever asked: nothing here is kept, so nothing is stale."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._history: Any = None

    @classmethod
    def open(cls, name_or_path: str | Path) -> Run:
        """By name, the beginning of a name, `last`, or a path. Raises `WrongUsageError` when there is no such run."""
        return cls(resolve_run(name_or_path))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def asked(self) -> dict[str, Any]:
        """What `run.json` holds: experiment, plan, settings, seed, git state, versions."""
        return read_run_file(self.path)

    @property
    def config(self) -> dict[str, Any]:
        """The settings under dotted keys: `model.num_blocks`, `train.lr`."""
        return flat_config(self.asked)

    @property
    def status(self) -> Status:
        """State, position and newest losses, as of now."""
        return read_status(self.path)

    @property
    def summary(self) -> RunSummary:
        return summarize(self.path)

    @property
    def checkpoints(self) -> list[Path]:
        """The folders of all whole checkpoints, by step."""
        return list_checkpoints(self.path)

    def checkpoint(self, which: str = "latest") -> Path:
        """The folder of the checkpoint `latest`, `best`, or of a step given as text."""
        return find_checkpoint(self.path, which)

    def metrics(self, kind: Literal["train", "validate"] = "train", *, frame: bool = False) -> Any:
        """The rows of one kind as {name: float64 array}, or as a pandas data frame (needs pandas).

        Rows that a crash made obsolete are left out; values that a row lacks are NaN; `stage` is an array of names. The
        second call on the same object reads only what was added since.
        """
        # Arrays live in lmplay.stats, one floor up: this package, which the worker and the screens load first, needs no
        # numpy. It is asked for by name, here only, when somebody wants arrays.
        if self._history is None:
            self._history = importlib.import_module("lmplay.stats.history").History(self.path)
        else:
            self._history.refresh()
        rows = self._history.train if kind == "train" else self._history.validate
        return rows.frame() if frame else rows.arrays()

    def events(self) -> list[dict[str, Any]]:
        """All events, oldest first."""
        return JsonlTail(self.path / EVENTS).read()

    def system(self) -> list[dict[str, Any]]:
        """All samples of the machine's memory, CPU and GPU use, oldest first."""
        return JsonlTail(self.path / SYSTEM).read()

    def follow(self, *, interval: float = 0.5, from_start: bool = False) -> Iterator[Update]:
        """Updates with what is new, every `interval` seconds as long as there is anything, until the run ends.

        The last update has a finished status. `from_start` gives the rows there are already, too.
        """
        follower = RunFollower(self.path, recent_bytes=None if from_start else 0)
        while True:
            update = follower.poll()
            if update.metrics or update.events or update.system or update.status.finished:
                yield update
            if update.status.finished:
                return
            time.sleep(interval)

    def control(
        self, action: str, arguments: Mapping[str, Any] | None = None, *, wait: bool = True, timeout: float = 60.0
    ) -> dict[str, Any]:
        """Ask the worker: pause, resume, stop, checkpoint, validate, sample, or set with `{"train.lr": 1e-4}`.

        Returns the event that ends the request: `done` or `refused`, or with `wait=False` `{"event": "requested"}`.
        Raises `LMPlayError` when no worker holds the run or none answers in time.
        """
        status = self.status
        if not status.active:
            raise LMPlayError(f"the run {self.name} is {status.state}: there is nobody to {action}")
        events = RunFollower(self.path, recent_bytes=0)
        asked = request(self.path, action, **(arguments or {}))
        if not wait:
            return {"event": "requested", "id": asked}
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            update = events.poll()
            for row in update.events:
                if row.get("id") == asked and row.get("event") in ("done", "refused", "expired"):
                    return row
            if update.status.finished:
                raise LMPlayError(f"the run {self.name} is {update.status.state}: nobody answers any more")
            time.sleep(0.02)
        raise LMPlayError(f"no answer from {self.name} for {timeout:g} s; the request still stands")
