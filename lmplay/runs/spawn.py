"""Starting a worker that belongs to the machine and not to the terminal it was started from."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from lmplay.runs.layout import LOG, STATUS, WORKER, read_json_object
from lmplay.runs.process import mark_process
from lmplay.runs.writer import lock_run
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import to_json, write_atomically


def spawn_worker(run_path: Path, argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Start `argv` as the worker of the run, detached: a session of its own, no stdin, output appended to `worker.log`.

    The run's state becomes `queued` until the worker takes it, so that a viewer doesn't take the end of an earlier
    worker for that of this one. Raises `RunBusyError` while another process writes the run. Returns the pid.
    """
    lock = lock_run(run_path)
    try:
        status = read_json_object(run_path / STATUS, of=f"the run {run_path.name}")
        (run_path / WORKER).unlink(missing_ok=True)
        write_atomically(run_path / STATUS, to_json({**status, "state": "queued"}) + "\n")
    finally:
        lock.release()
    with (run_path / LOG).open("ab", buffering=0) as log:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**(os.environ if env is None else env), "PYTHONUNBUFFERED": "1"},
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
