"""`lmplay doctor`: a sound machine is told so, and what stands in the way is named with its mend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from lmplay.cli import doctor, examinations
from lmplay.cli.examinations import Finding

app = typer.Typer()
doctor.register(app)


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in examinations.examine()}


def test_a_machine_that_runs_these_tests_is_sound(runs_folder: Path) -> None:
    result = call("--json")
    answer = json.loads(result.output)
    assert (result.exit_code, answer["ok"]) == (0, True)
    found = {finding["name"]: finding for finding in answer["findings"]}
    assert {"python", "versions", "processor", "memory", "runs", "cache", "tokenizer", "experiments"} <= found.keys()
    assert all(set(finding) == {"name", "verdict", "seen", "mend"} for finding in answer["findings"])
    assert f"torch {torch.__version__}" in found["versions"]["seen"]
    assert str(runs_folder) in found["runs"]["seen"]
    assert not list(runs_folder.glob(".doctor-*")), "the trial leaves nothing behind"


def test_what_stands_in_the_way_is_named_with_its_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LMPLAY_RUNS", str(tmp_path / "file" / "runs"))
    monkeypatch.setenv("COLUMNS", "200")
    result = call()
    assert result.exit_code == 1
    assert "FAIL  runs" in result.output
    assert "choose another: export LMPLAY_RUNS=FOLDER" in result.output
    assert "stands in the way: runs" in result.output


def test_what_could_be_better_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    monkeypatch.setattr(examinations, "LITTLE_DISK", 2**60)
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = findings()
    assert found["processor"].verdict == "note"
    assert f"OMP_NUM_THREADS={examinations.usable_cores()}" in found["processor"].mend
    assert found["runs"].verdict == "note"
    assert found["compiler"].verdict == "note"


def test_an_examination_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Finding]:
        raise OSError("no such\nthing")
        yield

    monkeypatch.setattr(examinations, "EXAMINATIONS", {"broken": broken, "compiler": examinations.compiler})
    assert findings()["broken"].seen == "OSError: no such thing"
    assert "compiler" in findings()
