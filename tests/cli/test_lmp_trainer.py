"""Each flag of the reference document does what its name says, on the engine of `lmplay run`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from lmplay.cli.errors import run_app
from lmplay.cli.lmp_trainer import app
from lmplay.runs import read_run_file, read_status
from tests.warm import client as warm

TINY = ("--num-blocks", "1", "--embed-dim", "16", "--num-heads", "2", "--max-len", "32", "--device", "cpu")


def lmp_trainer(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from lmplay.cli.lmp_trainer import main; main()"
    return warm.run(["-c", program, *arguments], cwd=cwd, env={**os.environ, "COLUMNS": "120"})


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Sixty samples of the built-in documentation, in the short form's spirit but small."""
    path = tmp_path / "plan.json"
    docs = {
        "source": "builtin",
        "args": {"name": "pydocs"},
        "validation": {"share": 0.2, "max_tokens": 1024},
    }
    stage = {"name": "only", "datasets": {"docs": 1.0}, "samples": 60}
    path.write_text(json.dumps({"version": 1, "datasets": {"docs": docs}, "stages": [stage]}))
    return path


@pytest.mark.slow
def test_training_flags_reach_the_run_and_history_can_be_set_aside(
    plan: Path, tmp_path: Path, runs_folder: Path
) -> None:
    first = lmp_trainer(
        *("--exp", "test_runner", *TINY, "--training-plan", str(plan), "--model", "mine", "--verbose"),
        *("--batch-size", "10", "--mini-batch-size", "5", "--validation-interval", "20", "--save-interval", "30"),
        *("--lr", "0.002", "--optimizer", "adagrad", "--weight-decay", "0.2", "--grad-clip", "0.5"),
        cwd=tmp_path,
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert "weight_decay = 0.2" in first.stdout, "--verbose prints the settings"
    run = runs_folder / "mine"
    request = read_run_file(run)["request"]
    assert request["model"] == {"num_blocks": 1, "embed_dim": 16, "num_heads": 2, "max_len": 32}
    assert request["train"] == {
        "batch_size": 10,
        "mini_batch_size": 5,
        "validation_interval": 20,
        "save_interval": 30,
        "lr": 0.002,
        "optimizer": "adagrad",
        "weight_decay": 0.2,
        "grad_clip": 0.5,
    }
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "validate"] == [0, 2, 4, 6]
    before = rows[-1]["loss"]

    again = lmp_trainer(
        *("--exp", "test_runner", *TINY, "--training-plan", str(plan), "--model", "mine", "--reset-history"),
        *("--steps", "1"),
        cwd=tmp_path,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert read_status(run).step == 1, "the steps are counted anew"
    assert (rows[0]["kind"], rows[0]["step"]) == ("validate", 0)
    assert rows[0]["loss"] == pytest.approx(before, rel=1e-6), "from the weights it had, in pieces of another size"
    kept = [path.name for path in runs_folder.iterdir() if path.name.startswith("mine-before-")]
    assert len(kept) == 1, "nothing is lost"

    started = lmp_trainer(
        *("--exp", "test_runner", *TINY, "--training-plan", str(plan), "--model", "other", "--steps", "0"),
        *("--initial-model", kept[0]),
        cwd=tmp_path,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    rows = [json.loads(line) for line in (runs_folder / "other/metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(before, rel=1e-6)


def test_weights_that_do_not_fit_and_histories_that_are_not_there_are_refused(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--exp", "test_runner", "--training-plan", str(plan), "--device", "cpu"]
    assert run_app(app, "lmp_trainer", [*options, "--reset-history"]) == 2
    assert "--reset-history needs --model" in capsys.readouterr().err
    assert run_app(app, "lmp_trainer", [*options, "--reset-history", "--model", "gone"]) == 2
    assert "there is no run gone" in capsys.readouterr().err
    assert run_app(app, "lmp_trainer", [*options, "--num-block", "2"]) == 2
    assert "did you mean --num-blocks?" in capsys.readouterr().err
