"""Starting (and, at need, killing) a worker that belongs to the machine and not to the terminal it was started from."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from lmplay.runs.layout import EVENTS, LOG, STATUS, WORKER, read_json_object
from lmplay.runs.process import is_alive, mark_process
from lmplay.runs.status import read_status
from lmplay.runs.writer import RunBusyError, lock_run, write_rows
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import to_json, write_atomically
from lmplay.utils.huge_pages import with_huge_pages


def spawn_worker(run_path: Path, argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Start `argv` as the worker of the run, detached: a session of its own, no stdin, output appended to `worker.log`.

    The run's state becomes `queued` until the worker takes it, so that a viewer doesn't take the end of an earlier
    worker for that of this one. Raises `RunBusyError` while another process writes the run. Returns the pid.
    """
    _mark_queued(run_path)
    with (run_path / LOG).open("ab", buffering=0) as log:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=with_huge_pages({**(os.environ if env is None else env), "PYTHONUNBUFFERED": "1"}),
                start_new_session=True,
                close_fds=True,
            )
        except OSError as error:
            raise LMPlayError(f"the worker of {run_path.name} could not be started: {error}") from error
    # Collects the worker when it ends, so that it is no zombie as long as its starter lives.
    threading.Thread(target=process.wait, name=f"lmplay-worker-{process.pid}", daemon=True).start()
    try:
        mark = mark_process(process.pid).fields()
    except psutil.NoSuchProcess:
        mark = {"pid": process.pid, "process_birth": -1.0}  # ended already: a mark that no process answers to
    write_atomically(run_path / WORKER, to_json({**mark, "command": list(argv)}) + "\n")
    return process.pid


def mark_submitted(run_path: Path, job: str) -> None:
    """The run waits for a scheduler that has been given it as `job`: state `queued` until the job's worker takes it."""
    with contextlib.suppress(RunBusyError):  # the job has begun already
        _mark_queued(run_path, job=job)
    write_rows(run_path / EVENTS, [{"event": "submitted", "clock": time.time(), "job": job}])


def _mark_queued(run_path: Path, **fields: str) -> None:
    lock = lock_run(run_path)
    try:
        status = read_json_object(run_path / STATUS, of=f"the run {run_path.name}")
        (run_path / WORKER).unlink(missing_ok=True)
        write_atomically(run_path / STATUS, to_json({**status, **fields, "state": "queued"}) + "\n")
    finally:
        lock.release()


def kill_worker(run_path: Path, *, patience: float = 10.0) -> None:
    """End the worker and its children at once, without saving, and say so in the run's status.

    Raises `LMPlayError` when no worker holds the run, or when it runs on another host.
    """
    status = read_status(run_path)
    if not status.active:
        raise LMPlayError(f"the run {run_path.name} has no worker to kill: it is {status.state}")
    if is_alive(status.fields) is None or status.pid is None:
        raise LMPlayError(f"the worker of {run_path.name} is on {status.host}: kill process {status.pid} there")
    # The worker leads a session of its own, so its group is it and what it started; a foreground worker's isn't.
    try:
        with contextlib.suppress(ProcessLookupError):  # it ended in this moment
            if os.getpgid(status.pid) == status.pid:
                os.killpg(status.pid, signal.SIGKILL)
            else:
                os.kill(status.pid, signal.SIGKILL)
    except PermissionError as error:
        raise LMPlayError(f"the worker of {run_path.name} (process {status.pid}) belongs to another user") from error
    end = time.monotonic() + patience
    while is_alive(status.fields) and time.monotonic() < end:
        time.sleep(0.01)
    lock = lock_run(run_path)
    try:
        now = time.time()
        write_rows(run_path / EVENTS, [{"event": "killed", "clock": now, "step": status.step, "pid": status.pid}])
        fields = read_json_object(run_path / STATUS, of=f"the run {run_path.name}")
        ended = {"state": "stopped", "reason": "killed without saving", "exit_status": 128 + signal.SIGKILL}
        ended |= {"updated": now, "ended": now}
        write_atomically(run_path / STATUS, to_json({**fields, **ended}) + "\n")
    finally:
        lock.release()
