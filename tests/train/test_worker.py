"""Runs in real processes: what a run leaves behind, killing and going on, stopping, failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from lmplay.runs import read_status, request
from tests.train.reading import events, wait_until
from tests.warm.client import WarmPopen

LMPlay = Callable[..., subprocess.CompletedProcess[str]]
Plan = Callable[..., Path]
OPTIONS = ("--set", "model.embed_dim=16", "--set", "model.max_len=64", "--device", "cpu")


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == kind]


def at_step(run: Path, step: int) -> Callable[[], bool]:
    return lambda: (run / "status.json").exists() and read_status(run).step >= step


def start(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return WarmPopen(
        [sys.executable, "-m", "lmplay", "run", "test_runner", *OPTIONS, *arguments],
        cwd=cwd,
        env={**os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_run_leaves_the_directory_that_the_design_names(lmplay: LMPlay, small_plan: Plan, runs_folder: Path) -> None:
    plan = small_plan(samples=40)
    done = lmplay("run", "test_runner", *OPTIONS, "--plan", str(plan), "--name", "whole", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    run = runs_folder / "whole"
    assert answer == {
        "run": "whole",
        "path": str(run),
        "state": "done",
        "steps": 10,
        "samples": 40,
        "tokens": 40 * 32,
        "validation_loss": rows(run, "validate")[-1]["loss"],
    }
    train, validate = rows(run, "train"), rows(run, "validate")
    assert [row["step"] for row in train] == list(range(1, 11))
    assert [row["samples"] for row in train] == list(range(4, 44, 4))
    assert [row["step"] for row in validate] == [0, 6, 10]
    assert abs(validate[0]["loss"] - 10.82) < 0.1
    assert validate[-1]["loss"] < validate[0]["loss"]
    for folder in ("latest", "best"):
        assert (run / "checkpoints" / folder / "model.safetensors").is_file()
    model = json.loads((run / "checkpoints/latest/model.json").read_text())
    assert model["format"] == 1
    assert model["experiment"] == "test_runner"
    assert model["init_kwargs"]["embed_dim"] == 16
    asked = json.loads((run / "run.json").read_text())
    assert {"experiment", "request", "plan", "config", "seed", "git", "versions", "host", "command"} <= asked.keys()
    assert events(run, "validated")[0]["sample"].startswith("The")


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_command_as_if_nothing_had_happened(
    tmp_path: Path, lmplay: LMPlay, small_plan: Plan, runs_folder: Path
) -> None:
    plan = str(small_plan(samples=160))
    undisturbed = lmplay("run", "test_runner", *OPTIONS, "--plan", plan, "--name", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr

    run = runs_folder / "killed"
    viewer = start(tmp_path, "--plan", plan, "--name", "killed")
    wait_until(at_step(run, 13), what="step 13")
    psutil.Process(read_status(run).pid).send_signal(signal.SIGKILL)
    viewer.communicate(timeout=60)
    assert viewer.returncode == 1
    assert read_status(run).state == "lost"

    resumed = lmplay("run", "test_runner", *OPTIONS, "--plan", plan, "--name", "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on with killed, which was lost" in resumed.stdout
    went_on = events(run, "resumed")[0]["step"]
    assert 8 <= went_on <= 40
    assert went_on % 4 == 0, "it goes on from a checkpoint, and those are every 16 samples"

    reference = runs_folder / "undisturbed"
    expected = {row["step"]: row for row in rows(reference, "train")}
    last = {row["step"]: row for row in rows(run, "train")}  # a later row of a step replaces the obsolete one
    assert last.keys() == expected.keys()
    for step, row in expected.items():
        assert (last[step]["loss"], last[step]["grad_norm"]) == (row["loss"], row["grad_norm"]), step
    ours = load_file(run / "checkpoints/latest/model.safetensors")
    theirs = load_file(reference / "checkpoints/latest/model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)


def test_a_script_that_is_interrupted_saves_says_how_to_go_on_and_exits_130(
    tmp_path: Path, small_plan: Plan, runs_folder: Path
) -> None:
    run = runs_folder / "interrupted"
    viewer = start(tmp_path, "--plan", str(small_plan(samples=4000)), "--name", "interrupted")
    wait_until(at_step(run, 2), what="step 2")
    viewer.send_signal(signal.SIGINT)
    output, _ = viewer.communicate(timeout=60)
    assert viewer.returncode == 130, output
    assert "Go on from there with the same command" in output
    status = read_status(run)
    assert status.state == "stopped"
    assert (run / "checkpoints" / str(status.step) / "model.safetensors").is_file()


def test_a_model_that_throws_fails_with_one_line_and_leaves_its_traceback_in_the_log(
    lmplay: LMPlay, small_plan: Plan, runs_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine" / "thrower"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "versions.py").write_text(
        "from lmplay.base.base_model import BasicModelRunner\n"
        "from lmplay.base.runner_list import expose_runner\n"
        "from lmplay.exp.gpt2ish.model import GPT2\n\n"
        "class Thrower(GPT2):\n"
        "    def forward(self, x, cache=None):\n"
        "        raise ZeroDivisionError('the idea was not sound')\n\n"
        "@expose_runner('thrower', description='throws')\n"
        "def runner(*args, **kwargs):\n"
        "    return BasicModelRunner(Thrower, *args, overrides=dict(embed_dim=16, num_heads=2), **kwargs)\n"
    )
    failed = lmplay(
        "run", "thrower", "--plan", str(small_plan()), "--name", "thrown", LMPLAY_EXPERIMENTS=str(folder.parent)
    )
    run = runs_folder / "thrown"
    assert failed.returncode == 1
    assert "ZeroDivisionError: the idea was not sound" in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "Traceback" in (run / "worker.log").read_text()
    assert read_status(run).state == "failed"
    assert len(events(run, "failed")) == 1


def test_a_model_without_a_cache_is_trained_all_the_same(
    lmplay: LMPlay, small_plan: Plan, runs_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine" / "cacheless"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "versions.py").write_text(
        "from torch import nn\n"
        "from lmplay.base.base_model import BasicModelRunner, LMBase\n"
        "from lmplay.base.runner_list import expose_runner\n\n"
        "class Cacheless(LMBase):\n"
        "    def __init__(self, max_len=64, embed_dim=16, **ignore):\n"
        "        super().__init__('cacheless', max_len=max_len, embed_dim=embed_dim)\n"
        "        self.tok_embed, self.fc = nn.Embedding(50257, embed_dim), nn.Linear(embed_dim, 50257)\n\n"
        "    def forward(self, x, cache=None):\n"
        "        return self.fc(self.tok_embed(x))\n\n"
        "@expose_runner('cacheless', description='forward alone')\n"
        "def runner(*args, **kwargs):\n"
        "    return BasicModelRunner(Cacheless, *args, overrides=dict(), **kwargs)\n"
    )
    plan = str(small_plan(samples=8))
    done = lmplay("run", "cacheless", "--plan", plan, "--name", "plain", LMPLAY_EXPERIMENTS=str(folder.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    run = runs_folder / "plain"
    assert [row["step"] for row in rows(run, "train")] == [1, 2]
    assert len(events(run, "warning")) == 1, "said once, not at each validation"
    assert "generating failed" in events(run, "warning")[0]["message"]


def test_requests_are_obeyed_at_a_step_boundary(tmp_path: Path, small_plan: Plan, runs_folder: Path) -> None:
    run = runs_folder / "steered"
    plan = str(small_plan(samples=40_000, sample_tokens=0, validation_interval=100_000, save_interval=100_000))
    viewer = start(tmp_path, "--plan", plan, "--name", "steered")
    wait_until(at_step(run, 2), what="step 2")
    request(run, "set", **{"train.lr": 1e-5})
    wait_until(lambda: bool(events(run, "changed")), what="the new rate")
    changed_at = events(run, "changed")[0]["step"]
    request(run, "set", **{"model.num_blocks": 3})
    wait_until(lambda: bool(events(run, "refused")), what="a refusal")
    assert "model.num_blocks cannot be changed" in events(run, "refused")[0]["reason"]
    request(run, "pause")
    wait_until(lambda: read_status(run).state == "paused", what="a pause")
    step = read_status(run).step
    time.sleep(0.5)
    assert read_status(run).step == step
    request(run, "resume")
    wait_until(at_step(run, step + 2), what="going on")
    request(run, "checkpoint")
    request(run, "stop")
    viewer.communicate(timeout=60)
    assert viewer.returncode == 0
    assert read_status(run).state == "stopped"
    rates = {row["step"]: row["lr"] for row in rows(run, "train")}
    assert rates[changed_at + 1] == 1e-5
    done = [row["action"] for row in events(run, "done")]
    assert done == ["set", "pause", "resume", "checkpoint", "stop"]
    asked = json.loads((run / "run.json").read_text())
    assert asked["request"]["train"]["lr"] == 1e-5
    assert "lr" not in asked["typed_request"]["train"]

    # The command that was typed goes on with the rate that was set.
    stopped_at = read_status(run).step
    viewer = start(tmp_path, "--plan", plan, "--name", "steered")
    wait_until(at_step(run, stopped_at + 2), what="going on after the stop")
    request(run, "stop")
    viewer.communicate(timeout=60)
    assert [row["lr"] for row in rows(run, "train") if row["step"] > stopped_at][:2] == [1e-5, 1e-5]


def test_signals_are_noted_before_torch_is_imported() -> None:
    code = """
import importlib.abc, os, runpy, signal, sys
class AtTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            os._exit(0 if callable(signal.getsignal(signal.SIGTERM)) else 7)
sys.meta_path.insert(0, AtTorch())
runpy.run_module("lmplay.train", run_name="__main__")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
