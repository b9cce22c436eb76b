"""A run as a job of a scheduler: submitit's executor for this machine stands in for a cluster."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lmplay.runs import read_status, request
from lmplay.train.parallel.slurm import minutes, parse_options
from lmplay.utils.errors import WrongUsageError

pytest.importorskip("submitit")


def events(run: Path) -> list[str]:
    if not (run / "events.jsonl").exists():
        return []
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for: {what}"
        time.sleep(0.1)


def test_preempted_job_saves_and_goes_on_when_it_is_requeued(lmplay: Any, small_plan: Any, runs_folder: Path) -> None:
    small = (
        "model.embed_dim=8",
        "model.num_heads=2",
        "model.num_blocks=1",
        "model.max_len=32",
        "train.sample_tokens=0",
    )
    sets = [word for key in (*small, "train.validation_interval=100000") for word in ("--set", key)]
    command = ["run", "gpt2ish", "--plan", str(small_plan(samples=400_000)), "--device", "cpu", "--name", "job"]
    asked = lmplay(*command, *sets, "--nproc", "2", "--launcher", "slurm", "--slurm", "cluster=local", "--json")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["state"] in {"queued", "starting"}
    run = runs_folder / "job"
    job = psutil.Process(int(read_status(run).fields["job"]))
    try:
        wait_until(lambda: read_status(run).step >= 3, what="three steps")
        tasks = sorted(job.children(), key=lambda task: task.pid)
        tasks[0].send_signal(signal.SIGUSR2)  # what a cluster sends before it takes the machine away
        wait_until(lambda: "resumed" in events(run), what="the job to be started again")
        assert events(run).index("stopped") < events(run).index("resumed")
        wait_until(lambda: read_status(run).state == "running", what="training to go on")
        request(run, "stop")
        wait_until(lambda: read_status(run).state == "stopped" and not job.is_running(), what="the job to end")
    finally:
        for process in [*job.children(recursive=True), job] if job.is_running() else []:
            process.kill()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("4:00:00", 240), ("2-12", 60 * 60), ("1-12:30:00", 36 * 60 + 30), ("30:01", 31), ("0:00:20", 1)],
)
def test_times_are_read_as_slurm_writes_them(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["partition", "nodes=two", "time=soon", "time=0", "cluster=moon", "no good=1"])
def test_wrong_options_are_refused_before_there_is_a_run(text: str) -> None:
    with pytest.raises(WrongUsageError, match="--slurm"):
        parse_options([text])
