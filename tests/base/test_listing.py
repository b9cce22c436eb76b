"""The remembered list of experiments: quick the second time, and never out of date."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm import client as warm

VERSIONS = """
import torch
from lmplay.base.runner_list import expose_runner
from .words import WORDS

@expose_runner("mine", description=WORDS)
def runner(*args, **kwargs):
    raise NotImplementedError
"""
LIST = (
    "import json, sys; from lmplay.base.listing import list_experiments; rows = list_experiments(); "
    "print(json.dumps([{row['name']: row for row in rows}.get('mine'), LOOKED, len(rows)]))"
)
# Whether the experiments were imported for the list.
LOOKED = "any(name.endswith('.mine.versions') for name in sys.modules)"


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "versions.py").write_text(VERSIONS)
    (folder / "words.py").write_text("WORDS = 'one'")
    monkeypatch.setenv("LMPLAY_EXPERIMENTS", str(folder))
    monkeypatch.setenv("LMPLAY_CACHE", str(tmp_path / "cache"))
    return folder


def listed() -> tuple[dict[str, str] | None, bool, int]:
    """The row of the experiment, whether it was imported for that, and the number of rows."""
    done = warm.run(["-c", LIST.replace("LOOKED", LOOKED)])
    assert done.returncode == 0, done.stderr
    row, looked, count = json.loads(done.stdout)
    return row, looked, count


def test_the_second_list_is_the_same_and_imports_no_torch(experiment: Path) -> None:
    first, looked, count = listed()
    assert first is not None
    assert looked
    code = LIST.replace("LOOKED", f"[{LOOKED}, 'torch' in sys.modules]")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [first, [False, False], count]
    os.utime(experiment / "versions.py")
    assert listed() == (first, True, count)


def test_a_change_anywhere_in_the_experiment_is_seen(experiment: Path) -> None:
    listed()
    (experiment / "words.py").write_text("WORDS = 'three'")
    row, _, count = listed()
    assert row is not None
    assert row["description"] == "three"
    (experiment / "words.py").write_text("WORDS = 1 / 0")
    row, _, _ = listed()
    assert row is None or row["broken"]
    (experiment / "words.py").write_text("WORDS = 'four'")  # nothing was kept of the broken list
    row, _, _ = listed()
    assert row is not None
    assert row["description"] == "four"
    (experiment / "versions.py").unlink()
    assert listed()[2] == count - 1


def test_a_damaged_file_is_none(experiment: Path) -> None:
    first = listed()
    file = experiment.parent / "cache" / "experiments.json"
    for content in ('{"rows"', "[]", "null", json.dumps({**json.loads(file.read_text()), "key": 0})):
        file.write_text(content)
        assert listed() == first
