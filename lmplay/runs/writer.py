"""The one writer of a run: the worker holds it for as long as it trains.

Rows are single appends, the status is replaced atomically, and a heartbeat of its own thread keeps the status fresh
while the trainer is busy with something long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from lmplay.runs.jsonl import JsonlAppender
from lmplay.runs.layout import (
    CHECKPOINTS,
    CONTROL,
    EVENTS,
    LOCK,
    METRICS,
    RUN,
    STATUS,
    SYSTEM,
    read_json_object,
    read_run_file,
)
from lmplay.runs.process import is_alive, mark_process
from lmplay.runs.status import ACTIVITY_FIELDS, FINISHED, HEARTBEAT_SECONDS, WRITTEN_STATES
from lmplay.runs.system import SystemSampler
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import to_json, write_atomically

# What the status repeats of the newest rows, so that a list of a thousand runs reads one small file each.
_FROM_TRAIN = ("stage", "step", "samples", "tokens", "time", "loss", "lr", "grad_norm", "tokens_per_second")
_FROM_VALIDATE = {
    "loss": "validation_loss",
    "perplexity": "validation_perplexity",
    "bits_per_byte": "validation_bits_per_byte",
    "accuracy": "validation_accuracy",
}


class RunBusyError(LMPlayError):
    """Another process writes this run."""


class RunGoneError(LMPlayError):
    """The folder of the run was deleted or moved away while this process wrote it."""

    exit_status = 3


def lock_run(path: Path) -> FileLock:
    """Take the writer's lock of the run, or raise `RunBusyError` naming who has it. Release it with `.release()`."""
    lock = FileLock(path / LOCK, timeout=0, thread_local=False)
    try:
        try:
            lock.acquire()
        except Timeout:
            # A process that was just killed is dead before the last of its threads has let go of its files.
            if is_alive(_holder(path)) is not False:
                raise
            lock.acquire(timeout=5.0, poll_interval=0.01)
    except Timeout:
        mark = _holder(path)
        holder = f"process {mark['pid']} on {mark.get('host')}" if "pid" in mark else "another process"
        raise RunBusyError(
            f"the run {path.name} is being written by {holder}: stop it first, or attach to it"
        ) from None
    except OSError as error:
        raise LMPlayError(f"the run {path.name} can't be locked: {error.strerror} ({path / LOCK})") from error
    return lock


def _holder(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path / STATUS, of=f"the run {path.name}")
    except LMPlayError:
        return {}


class RunWriter:
    """Holds the lock of the run in `path` and writes its files; a context manager.

    Entering marks the run as this process's, state `starting`. Leaving through an exception while the state is not a
    final one marks it `failed` with the exception in one line. Safe to call from several threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.RLock()
        self._status: dict[str, Any] = {}
        self._lock: FileLock | None = None
        self.earlier_requests: frozenset[str] = frozenset()
        """Files in control/ from before this writer took the run: they asked something of a worker that is gone."""

    def __enter__(self) -> Self:
        read_run_file(self.path)
        self._lock = lock_run(self.path)
        self._inode = self.path.stat().st_ino
        try:
            for folder in (CONTROL, CHECKPOINTS):
                (self.path / folder).mkdir(exist_ok=True)
            self.earlier_requests = frozenset(path.name for path in (self.path / CONTROL).iterdir())
            self._metrics = JsonlAppender(self.path / METRICS)
            self._system = JsonlAppender(self.path / SYSTEM)
            self._events = JsonlAppender(self.path / EVENTS)
            self._status = self._last_status()
            # What the worker before this one ended with is no longer true.
            for key in ("error", "reason", "ended", "exit_status"):
                self._status.pop(key, None)
            self.status(state="starting", activity=None, worker_started=time.time(), **mark_process().fields())
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            unsaid = isinstance(error, Exception) and self._status.get("state") not in FINISHED
            if error is not None and unsaid and not isinstance(error, RunGoneError):
                self.failed(error)
        finally:
            for appender in (self._metrics, self._system, self._events):
                appender.close()
            if self._lock is not None:
                self._lock.release()

    def metrics(self, *rows: Mapping[str, Any]) -> None:
        """Append rows with a `kind` of `train` or `validate`; several are one write. Raises OSError on a full disk.

        The status follows the newest row; it reaches the disk with the next `status` or heartbeat.
        """
        with self._mutex:
            self._metrics.append(rows)
            for row in rows:
                if row.get("kind", "train") == "train":
                    self._status.update({key: row[key] for key in _FROM_TRAIN if key in row})
                else:
                    self._status.update({name: row[key] for key, name in _FROM_VALIDATE.items() if key in row})

    def system(self, row: Mapping[str, Any]) -> None:
        """Append a row about the machine: memory, CPU and GPU use."""
        with self._mutex:
            self._system.append([{"clock": time.time(), **row}])

    def event(self, kind: str, **fields: Any) -> None:
        """Append an event, with the time of day (`clock`) and the step that the run is at, unless `fields` differ."""
        with self._mutex:
            step = {"step": self._status["step"]} if "step" in self._status else {}
            self._events.append([{"event": kind, "clock": time.time(), **step, **fields}])

    def resumed(self, step: int, **fields: Any) -> None:
        """Training goes on from the checkpoint of `step`: rows with a later step written until now become obsolete.

        They stay in the file; readers hide them. Also to be called when a worker goes back to an earlier checkpoint.
        """
        with self._mutex:
            self.event("resumed", **{**fields, "step": step, "metrics_bytes": self._metrics.size()})
            self._status["step"] = step

    def status(self, **fields: Any) -> None:
        """Replace `status.json`: the given fields change, all others are kept. Raises as `check_folder`."""
        state = fields.get("state")
        assert state is None or state in WRITTEN_STATES, state
        with self._mutex:
            if "activity" in fields:  # how far the one before was goes with it
                self._status = {key: value for key, value in self._status.items() if key not in ACTIVITY_FIELDS}
            self._status.update(fields)
            self._status["updated"] = time.time()
            if state in FINISHED:
                self._status["ended"] = self._status["updated"]
            self.check_folder()
            write_atomically(self.path / STATUS, to_json(self._status) + "\n", durable=state in FINISHED)

    def check_folder(self) -> None:
        """Raise `RunGoneError` when the folder isn't the run's any more: what is written then would make a broken run
        of a deleted one, or end up in another run of the same name.
        """
        try:
            # A deletion that is under way may have reached run.json and not the folder.
            there = self.path.stat().st_ino == self._inode and (self.path / RUN).exists()
        except (FileNotFoundError, NotADirectoryError):
            there = False
        except OSError:
            return  # a disk that is away for a while
        if not there:
            raise RunGoneError(f"the run {self.path.name} is gone: {self.path} was deleted or moved away; it ends here")

    def failed(self, error: BaseException) -> None:
        """State `failed` with the error in one line, and an event; the traceback belongs into the worker's log."""
        line = " ".join(str(error).split())
        message = line if isinstance(error, LMPlayError) else f"{type(error).__name__}: {line}".rstrip(": ")
        self.event("failed", error=message)
        self.status(state="failed", error=message, exit_status=getattr(error, "exit_status", 1))

    def lost_process(self, reason: str) -> None:
        """State `failed`: another process that trains this run has gone, and this one hangs in waiting for it."""
        self.failed(LMPlayError(f"{reason}; the same command goes on from the last checkpoint"))

    def heartbeat(self, *, interval: float = HEARTBEAT_SECONDS, system_interval: float = 5.0) -> Heartbeat:
        """A context manager: a thread that refreshes the status (and samples the machine) until it is left."""
        return Heartbeat(self, interval=interval, system_interval=system_interval)

    def _last_status(self) -> dict[str, Any]:
        try:
            return read_json_object(self.path / STATUS, of=f"the run {self.path.name}")
        except LMPlayError:
            return {}  # half deleted or damaged; the rows tell the history, and the worker is about to write anew


class Heartbeat:
    """Refreshes the status from a thread of its own, so that a long compile is not taken for death.

    A disk that is full or away for a while does not end it: it tries again at the next beat. A run that is gone does;
    whoever trains finds that out for itself.
    """

    def __init__(self, writer: RunWriter, *, interval: float, system_interval: float) -> None:
        self._writer = writer
        self._interval = interval
        self._system_interval = system_interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lmplay-heartbeat", daemon=True)
        self.last_error: OSError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        sampler = SystemSampler()
        next_sample = time.monotonic()
        while not self._ended.wait(self._interval):
            try:
                self._writer.status()
                if self._system_interval and time.monotonic() >= next_sample:
                    self._writer.system(sampler.sample())
                    next_sample = time.monotonic() + self._system_interval
                self.last_error = None
            except RunGoneError:
                return
            except OSError as error:
                self.last_error = error


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a file once; the caller holds whatever lock guards it."""
    appender = JsonlAppender(path)
    try:
        appender.append(rows)
    finally:
        appender.close()
