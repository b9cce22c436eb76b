"""Real worker processes without a model: what tests of runs start, watch and kill."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmplay.runs import create_run, read_status, spawn_worker

FAKE_WORKER = Path(__file__).parent / "fake_worker.py"


StartWorker = Callable[..., int]


def wait_for(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    """Until `condition` holds; fails the test after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    status: int
    output: str
    errors: str


Here = Callable[..., Said]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """`here("runs", "--json")`: a command in this process, without the price of starting one."""
    from lmplay.cli.errors import run_app
    from lmplay.cli.main import app

    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        status = run_app(app, "lmplay", arguments)
        said = capsys.readouterr()
        return Said(status=status, output=said.out, errors=said.err)

    return call


@pytest.fixture
def run(runs_folder: Path) -> Path:
    """A run that nobody has started."""
    return create_run("fake", name="one", root=runs_folder, seed=1, config={"train.lr": 1e-3})


@pytest.fixture
def start_worker() -> Iterator[Callable[..., int]]:
    """`start_worker(run, "--steps", "9")` starts a fake worker, detached; what is left of them is killed at the end."""
    started: list[int] = []

    def start(run: Path, *arguments: str) -> int:
        pid = spawn_worker(run, [sys.executable, str(FAKE_WORKER), str(run), *arguments])
        started.append(pid)
        wait_for(lambda: read_status(run).state != "queued")
        return pid

    yield start
    for pid in started:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
