"""What every test stands on: one torch thread, run folders of its own, and a way to call the real command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.warm import client as warm

REPO = Path(__file__).resolve().parent.parent

# Before torch is imported anywhere, in this process and in the workers that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# What subprocesses import of this checkout is compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Subprocesses run the code of this checkout from whatever folder they are started in.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))

# A machine that is busy with something else is no fault of the code: no test is timed.
settings.register_profile("lmplay", deadline=None)
settings.load_profile("lmplay")

LMPlay = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session", autouse=True)
def token_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of tokens for the whole suite (all xdist workers), apart from the user's own."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "lmplay-cache"
    os.environ["LMPLAY_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has its own $LMPLAY_RUNS."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("LMPLAY_RUNS", str(folder))
    return folder


@pytest.fixture
def lmplay(tmp_path: Path) -> LMPlay:
    """`lmplay("run", "test_runner", ...)` as a user types it, in an empty folder; returns the finished process.

    It has torch from the beginning (`tests.warm.client` says how); test_wheel.py and test_startup.py start the command
    itself.
    """

    def call(
        *arguments: str, input: str | None = None, timeout: float = 240, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        surroundings = {**os.environ, "COLUMNS": "120", **environment}
        return warm.run(["-m", "lmplay", *arguments], input=input, timeout=timeout, cwd=tmp_path, env=surroundings)

    return call
