"""A worker as a process: it outlives its starter, holds its run alone, and is missed when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmplay.runs import JsonlTail, RunBusyError, RunWriter, read_last_rows, read_status, request, spawn_worker
from lmplay.runs.system import SystemSampler

from .conftest import FAKE_WORKER, StartWorker, wait_for


def events_of(run: Path) -> list[str]:
    return [row["event"] for row in JsonlTail(run / "events.jsonl").read()]


def test_worker_runs_in_a_session_of_its_own_to_the_end(run: Path, start_worker: StartWorker) -> None:
    pid = start_worker(run, "--steps", "30", "--pause", "0.01")
    assert os.getsid(pid) == pid != os.getsid(0)
    wait_for(lambda: read_status(run).finished)
    status = read_status(run)
    assert (status.state, status.step, status.tokens) == ("done", 30, 30 * 512)
    assert status.validation_loss == pytest.approx(read_last_rows(run / "metrics.jsonl", 1)[0]["loss"])
    assert "fake worker began" in (run / "worker.log").read_text()


def test_killed_worker_is_lost_at_once_and_another_can_go_on(run: Path, start_worker: StartWorker) -> None:
    pid = start_worker(run, "--steps", "100000", "--pause", "0.01")
    wait_for(lambda: read_status(run).step > 2)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: read_status(run).state == "lost", seconds=2)
    assert str(pid) in read_status(run).reason
    start_worker(run, "--steps", "5")
    wait_for(lambda: read_status(run).state == "done")


def test_worker_that_ends_between_two_looks_at_it_is_not_lost(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunWriter(run) as writer:
        writer.status(state="running")

        def goes(_: object) -> bool:
            writer.status(state="done")
            return False

        monkeypatch.setattr("lmplay.runs.status.is_alive", goes)
        assert read_status(run).state == "done"


def test_second_worker_cannot_take_a_run(run: Path, start_worker: StartWorker) -> None:
    pid = start_worker(run, "--steps", "100000", "--pause", "0.01")
    wait_for(lambda: read_status(run).state == "running")
    with pytest.raises(RunBusyError, match=str(pid)):
        spawn_worker(run, ["true"])
    second = subprocess.run(
        [sys.executable, str(FAKE_WORKER), str(run)], capture_output=True, text=True, check=False, timeout=60
    )
    assert second.returncode != 0
    assert "RunBusyError" in second.stderr
    assert read_status(run).pid == pid
    assert read_status(run).state == "running"


def test_worker_that_ends_before_it_takes_its_run_is_lost(run: Path) -> None:
    spawn_worker(run, [sys.executable, "-c", "raise SystemExit('no such module')"])
    wait_for(lambda: read_status(run).state == "lost")
    assert "worker.log" in read_status(run).reason
    wait_for(lambda: "no such module" in (run / "worker.log").read_text())


def test_request_is_requested_accepted_and_done(run: Path, start_worker: StartWorker) -> None:
    start_worker(run, "--steps", "100000", "--pause", "0.01")
    wait_for(lambda: read_status(run).state == "running")
    asked = request(run, "set", **{"train.lr": 5e-4})
    request(run, "stop")
    wait_for(lambda: read_status(run).state == "stopped")
    history = [(row["event"], row["id"]) for row in JsonlTail(run / "events.jsonl").read() if row.get("id") == asked]
    assert history == [("requested", asked), ("accepted", asked), ("done", asked)]
    assert not list((run / "control").iterdir())


def test_requests_for_a_worker_that_is_gone_expire(run: Path, start_worker: StartWorker) -> None:
    request(run, "stop")
    start_worker(run, "--steps", "5")
    wait_for(lambda: read_status(run).finished)
    assert read_status(run).state == "done"
    assert "expired" in events_of(run)


def test_exception_in_the_worker_is_a_failed_run_with_its_reason(run: Path) -> None:
    def train() -> None:
        with RunWriter(run) as writer:
            writer.status(state="running")
            raise KeyError("blocks")

    with pytest.raises(KeyError):
        train()
    status = read_status(run)
    assert (status.state, status.reason) == ("failed", "KeyError: 'blocks'")
    assert events_of(run) == ["failed"]


def test_a_card_that_falls_off_the_bus_does_not_stop_the_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def handle(index: int) -> int:
        if index == 1:
            raise NVMLError("GPU is lost")
        return index

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetName=lambda _: "card",
    )
    for name in ("UtilizationRates", "MemoryInfo", "Temperature", "PowerUsage"):
        setattr(nvml, f"nvmlDeviceGet{name}", lambda *_: handle(1))
    nvml.NVML_TEMPERATURE_GPU = 0
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    first, second = SystemSampler().sample()["gpus"]
    assert (first["name"], first["use"]) == ("card", None)
    assert second == {"index": 1}
