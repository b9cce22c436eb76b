"""`--launcher slurm`: the run as a job of a cluster, through submitit; saved and queued again when it is preempted.

A task of the job is a small process that starts the worker, one of the run's processes, and passes on what the
scheduler says: before its time is over, or when something more important comes, SIGUSR1 lets the worker save and end,
and the job goes back into the queue. Nothing here imports torch; submitit is an optional dependency.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmplay.runs.layout import LOG
from lmplay.train.parallel.place import Place, environment_of
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.huge_pages import with_huge_pages

# Exit statuses of a worker that was told to end, and has saved.
SAVED = {128 + signal.SIGUSR1, 128 + signal.SIGTERM}
# How long before the end of its time a job is told; --slurm signal=SECONDS.
SIGNAL_SECONDS = 120
# A run goes back into the queue as often as its plan needs.
MOST_REQUEUES = 10_000
POLL_SECONDS = 0.2


class TrainJob:
    """What submitit runs in each task, and asks for a `checkpoint` when the task is to make room."""

    def __init__(self, run: str) -> None:
        self.run = run

    def __call__(self) -> int:
        """The worker's exit status; `LMPlayError` when it has failed."""
        import submitit

        job = submitit.JobEnvironment()
        per_node = job.num_tasks // job.num_nodes
        place = Place(rank=job.global_rank, size=job.num_tasks, local_rank=job.local_rank, local_size=per_node)
        environment = environment_of(place, address=job.hostnames[0], port=_port(job.job_id))
        with (Path(self.run) / LOG).open("ab", buffering=0) as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "lmplay.train", self.run],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=with_huge_pages({**os.environ, **environment, "PYTHONUNBUFFERED": "1"}),
            )
        # A thread waits: `checkpoint` comes as a signal, in the middle of whatever the main thread does.
        self._end = threading.Thread(target=self._worker.wait, daemon=True)
        self._end.start()
        self._wait()
        status = self._worker.returncode
        if status not in {0, *SAVED}:
            raise LMPlayError(f"the worker of {self.run} ended with exit status {status}; its {LOG} says why")
        return status

    def checkpoint(self) -> Any:
        """Called in the first task, in a signal handler: save, and ask for the same job again."""
        from submitit.helpers import DelayedSubmission

        self._worker.send_signal(signal.SIGUSR1)
        self._wait()
        return DelayedSubmission(TrainJob(self.run))

    def _wait(self) -> None:
        while self._end.is_alive():
            time.sleep(POLL_SECONDS)


def submit(run: Path, options: Mapping[str, str], *, nproc: int, device: str) -> str:
    """Write and submit the job that trains `run`; returns its id. `options` as `parse_options` gives them."""
    try:
        import submitit
    except ImportError as error:
        raise LMPlayError("--launcher slurm needs the package submitit: pip install 'lmplay[slurm]'") from error
    known = {key: value for key, value in options.items() if key != "cluster"}
    parameters: dict[str, Any] = {
        "name": run.name,
        "nodes": _whole("nodes", known.pop("nodes", "1")),
        "tasks_per_node": nproc,
        "gpus_per_node": _whole("gpus", known.pop("gpus", "0" if device == "cpu" else str(nproc))),
        "timeout_min": minutes(known.pop("time", "60")),
        "stderr_to_stdout": True,
        "slurm_signal_delay_s": _whole("signal", known.pop("signal", str(SIGNAL_SECONDS))),
    }
    if "cpus" in known:
        parameters["cpus_per_task"] = _whole("cpus", known.pop("cpus"))
    for name in ("partition", "account", "qos", "constraint", "exclude", "mem", "comment"):
        if name in known:
            parameters[f"slurm_{name}"] = known.pop(name)
    if known:  # whatever else sbatch takes
        parameters["slurm_additional_parameters"] = known
    try:
        executor = submitit.AutoExecutor(
            folder=run / "slurm", cluster=options.get("cluster", "slurm"), slurm_max_num_timeout=MOST_REQUEUES
        )
        executor.update_parameters(**parameters)
        with _output_kept_apart():
            job: str = executor.submit(TrainJob(str(run))).job_id
    except (RuntimeError, ValueError, OSError, submitit.core.utils.FailedJobError) as error:
        raise LMPlayError(f"the job of {run.name} could not be submitted: {' '.join(str(error).split())}") from error
    return job


@contextlib.contextmanager
def _output_kept_apart() -> Iterator[None]:
    """What is started inside has no hold of this command's output: on this machine, the job itself, whose end whoever
    reads the output would wait for.
    """
    kept = [(number, os.dup(number)) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number, _ in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """`["partition=gpu", "time=4:00:00"]` -> `{"partition": "gpu", "time": "4:00:00"}`, checked as far as can be."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if not equals or not key.isidentifier():
            raise WrongUsageError(f"--slurm {text}: give it as key=value, for example partition=gpu or time=4:00:00")
        key = {"gpus_per_node": "gpus", "cpus_per_task": "cpus"}.get(key, key)
        options[key] = value.strip()
    for key in {"nodes", "gpus", "cpus", "signal"} & options.keys():
        _whole(key, options[key])
    minutes(options.get("time", "60"))
    if options.get("cluster", "slurm") not in {"slurm", "local"}:
        raise WrongUsageError("--slurm cluster: slurm, or local to try the job on this machine")
    return options


def minutes(text: str) -> int:
    """Slurm's ways of writing a time, in minutes: `90`, `4:00:00`, `2-12`, `1-12:30:00`; seconds count as a minute."""
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    try:
        numbers = [int(part) for part in parts]
        whole_days = int(days) if dash else 0
    except ValueError:
        numbers, whole_days = [], 0
    if not 1 <= len(numbers) <= 3:
        raise WrongUsageError(f"--slurm time={text}: give minutes, or a time like 4:00:00 or 1-12:30:00")
    if dash:
        hours, mins, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, mins, seconds = numbers
    else:
        hours, mins, seconds = 0, *(*numbers, 0)[:2]
    total = (whole_days * 24 + hours) * 60 + mins + (seconds > 0)
    if total < 1:
        raise WrongUsageError(f"--slurm time={text}: a job needs a minute at least")
    return total


def _whole(key: str, text: str) -> int:
    if not text.isdecimal():
        raise WrongUsageError(f"--slurm {key}={text}: give a whole number")
    return int(text)


def _port(job: str) -> int:
    """Where the processes of a job meet: jobs on one node rarely have the same, and all tasks of one know it."""
    return 20_000 + int("".join(filter(str.isdecimal, job)) or 0) % 20_000
