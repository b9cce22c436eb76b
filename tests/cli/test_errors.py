"""Mistakes on the command line: one line that names the mend, the right exit status, and no run left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmplay.cli.errors import run_app
from lmplay.cli.main import app

LMPlay = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run", "test_runer"], 2, "no experiment is called 'test_runer'; did you mean test_runner?"),
        (["run", "test_runner", "--stepz", "3"], 2, "no such option: --stepz; did you mean --steps?"),
        (["run", "test_runner", "--steps", "many"], 2, "--steps"),
        (["run", "test_runner", "--set", "train.learning_rate=1"], 2, "unknown key train.learning_rate"),
        (["run", "test_runner", "--set", "model.numblocks=1"], 2, "did you mean model.num_blocks"),
        (["run", "test_runner", "--set", "lr=1"], 2, "did you mean train.lr"),
        (["run", "test_runner", "--plan", "quikstart"], 2, "did you mean quickstart?"),
        (["run", "test_runner", "--plan", "quickstart", "--device", "gpu"], 2, "unknown device"),
        (["run", "test_runner", "--plan", "quickstart", "--set", "model.num_heads=3"], 2, "cannot be built"),
        (["run", "test_runner", "--plan", "quickstart", "--initial-model", "gone"], 2, "gone"),
        (["run", "test_runner", "--plan", "quickstart", "--name", "../up"], 2, "can't be a run's name"),
        (["generate", "gone", "--prompt", "x"], 2, "gone"),
        (["runn"], 2, "Did you mean 'run'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_run(
    capsys: pytest.CaptureFixture[str], runs_folder: Path, arguments: list[str], status: int, message: str
) -> None:
    assert run_app(app, "lmplay", arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert not runs_folder.exists() or list(runs_folder.iterdir()) == []


def test_a_mistake_ends_the_real_command_the_same_way(lmplay: LMPlay, runs_folder: Path) -> None:
    done = lmplay("run", "test_runer")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lmplay: no experiment is called 'test_runer'; did you mean test_runner?\n"
    assert not runs_folder.exists()


def test_an_unreadable_plan_is_one_line(lmplay: LMPlay, tmp_path: Path) -> None:
    plan = tmp_path / "broken.json"
    plan.write_text('{"version": 1, "datasets": {')
    done = lmplay("run", "test_runner", "--plan", str(plan))
    assert done.returncode == 2
    assert "not JSON" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(lmplay: LMPlay) -> None:
    done = lmplay("run", "test_runer", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_the_default_plan_without_a_network_names_the_quickstart(lmplay: LMPlay) -> None:
    offline = lmplay("run", "test_runner", "--plan", "default", "--name", "offline")
    assert offline.returncode == 1
    assert "--plan quickstart" in offline.stdout
    assert "Traceback" not in offline.stdout + offline.stderr


def test_settings_are_dumped_and_read_back(lmplay: LMPlay, tmp_path: Path) -> None:
    first = lmplay("run", "test_runner", "--plan", "quickstart", "--set", "train.weight_decay=0.5", "--dump-config")
    assert first.returncode == 0, first.stderr
    (tmp_path / "settings.toml").write_text(first.stdout)
    second = lmplay("run", "--config", "settings.toml", "--lr", "0.25", "--dump-config")
    assert second.returncode == 0, second.stderr
    changed = [
        (old, new) for old, new in zip(first.stdout.splitlines(), second.stdout.splitlines(), strict=True) if old != new
    ]
    assert changed == [("lr = 0.003", "lr = 0.25")]


def test_a_reader_that_has_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lmplay list | head -1`: Typer ends with 1 when a pipe breaks."""
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    assert run_app(app, "lmplay", ["plans"]) == 0
