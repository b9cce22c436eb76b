"""The registry: where experiments are found, and what happens to those that cannot be loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmplay.base.runner_list import MODEL_RUNNERS, expose_runner, get_runner
from lmplay.utils.errors import WrongUsageError
from tests.warm import client as warm

REPO = Path(__file__).resolve().parents[2]

VERSIONS = """
from lmplay.base.base_model import BasicModelRunner
from lmplay.base.runner_list import expose_runner
from .model import Tiny

@expose_runner("{name}", description="A test.", long_name="A {name}")
def runner(*args, **kwargs):
    return BasicModelRunner(Tiny, *args, overrides=dict(width=3), **kwargs)
"""
MODEL = """
from torch import nn
from lmplay.base.base_model import LMBase

print("what an experiment prints is no part of an answer on standard output")

class Tiny(LMBase):
    def __init__(self, max_len=16, width=2, **ignore):
        super().__init__("tiny", max_len=max_len)
        self.fc = nn.Linear(width, width)
"""
LIST = "import json; from lmplay.base.listing import list_experiments; print(json.dumps(list_experiments()))"


def experiment(home: Path, folder: str, *, name: str | None = None, versions: str | None = None) -> Path:
    path = home / folder
    path.mkdir(parents=True)
    (path / "__init__.py").touch()
    (path / "model.py").write_text(MODEL)
    (path / "versions.py").write_text(versions if versions is not None else VERSIONS.format(name=name or folder))
    return path


def run_python(code: str, repo: Path = REPO, *, fresh: bool = False, **environment: str) -> str:
    """What the code printed; `fresh` where it matters that torch was not imported before."""
    environment = {**os.environ, "PYTHONPATH": str(repo), **environment}
    if fresh:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, check=False)
    else:
        done = warm.run(["-c", code], cwd=repo, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(repo: Path = REPO, **environment: str) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in json.loads(run_python(LIST, repo, **environment))}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the package, for tests that add to it."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPO / "lmplay", tmp_path / "clone" / "lmplay", ignore=ignore)
    return tmp_path / "clone"


def test_experiments_are_found_by_folder_and_broken_ones_do_no_harm(tmp_path: Path) -> None:
    home = tmp_path / "home"
    experiment(home, "sound")
    experiment(home / "family", "child")
    experiment(home, "raises", versions="x = 1\nimport torch\nraise RuntimeError('half-written')\n")
    experiment(home, "typo", versions="def runner(:\n")
    experiment(home, "leaves", versions="import sys\nsys.exit(3)\n")
    # What a broken module registered before it failed is not offered.
    experiment(home, "late", versions=VERSIONS.format(name="late") + "\nundefined_name\n")
    alone = experiment(tmp_path / "elsewhere", "alone")
    rows = listed(LMPLAY_EXPERIMENTS=os.pathsep.join([str(home), str(alone), str(tmp_path / "missing")]))

    assert rows["gpt2ish"]["broken"] is None
    assert rows["sound"] == {
        "name": "sound",
        "description": "A test.",
        "long_name": "A sound",
        "module": "lmplay.exp.sound.versions",
        "broken": None,
    }
    assert rows["child"]["module"] == "lmplay.exp.family.child.versions"
    assert rows["alone"]["broken"] is None
    assert "RuntimeError: half-written (versions.py, line 3)" in rows["raises"]["broken"]
    assert str(home / "raises" / "versions.py") in rows["raises"]["broken"]
    assert "SyntaxError" in rows["typo"]["broken"]
    assert "SystemExit: 3" in rows["leaves"]["broken"]
    assert "NameError: name 'undefined_name' is not defined" in rows["late"]["broken"]
    assert "does not exist" in rows["missing"]["broken"]


def test_a_name_claimed_from_two_places_is_an_error_that_names_both(tmp_path: Path) -> None:
    first = experiment(tmp_path, "first", name="twice")
    second = experiment(tmp_path, "second", name="twice")
    code = (
        "from lmplay.base.runner_list import *; from lmplay.base.listing import list_experiments\n"
        "assert 'twice' not in MODEL_RUNNERS and 'gpt2ish' in MODEL_RUNNERS\n"
        "try: get_runner('twice')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print([row['broken'] for row in list_experiments() if row['name'] == 'twice'])"
    )
    message = run_python(code, LMPLAY_EXPERIMENTS=str(tmp_path))
    assert message.startswith("WrongUsageError")
    assert f"{first / 'versions.py'}:6" in message
    assert f"{second / 'versions.py'}:6" in message
    assert message.splitlines()[1].count("rename one") == 1


def test_registering_a_taken_name_by_hand_raises_at_once() -> None:
    assert "gpt2ish" in MODEL_RUNNERS
    with pytest.raises(WrongUsageError, match=r"gpt2ish/versions\.py:\d+ and .*test_runner_list\.py:\d+"):
        expose_runner("gpt2ish")(lambda: None)
    assert MODEL_RUNNERS["gpt2ish"].module == "lmplay.exp.gpt2ish.versions"


def test_two_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    experiment(tmp_path, "gpt2ish", name="mine")
    rows = json.loads(run_python(LIST, LMPLAY_EXPERIMENTS=str(tmp_path)))
    sound = {row["name"] for row in rows if row["broken"] is None}
    assert "gpt2ish_med" in sound
    assert "mine" not in sound
    assert any("same folder name" in row["broken"] for row in rows if row["broken"] is not None)


def test_an_import_line_loads_no_torch_and_a_broken_experiment_breaks_nothing(clone: Path) -> None:
    exp = clone / "lmplay" / "exp"
    experiment(exp, "my_experiment")
    experiment(exp, "broken", versions="raise RuntimeError('half-written')\n")
    with (clone / "lmplay" / "__init__.py").open("a") as file:
        file.write("\nimport lmplay.exp.broken.versions\nimport lmplay.exp.my_experiment.versions\n")
    code = (
        "import inspect, sys, lmplay, lmplay.cli.main\n"
        "inspect.getmodule(compile('', 'nowhere', 'exec'))  # looks at every module there is\n"
        "assert 'torch' not in sys.modules\n"
        "assert {'my_experiment', 'gpt2ish'} <= set(lmplay.MODEL_RUNNERS)\n"
        "from lmplay.exp.my_experiment.versions import runner\n"
        "assert runner is lmplay.MODEL_RUNNERS['my_experiment'].factory\n"
    )
    run_python(code, clone, fresh=True)
    assert "half-written" in listed(clone)["broken"]["broken"]


def test_versions_can_be_imported_before_the_registry_is_read() -> None:
    run_python(
        "from lmplay.exp.gpt2ish.versions import runner\n"
        "from lmplay.base.runner_list import MODEL_RUNNERS, broken_experiments\n"
        "assert MODEL_RUNNERS['gpt2ish'].factory is runner and not broken_experiments()\n"
    )


def test_a_second_look_finds_what_was_added_and_mended(tmp_path: Path) -> None:
    experiment(tmp_path, "early", versions="raise RuntimeError\n")
    code = f"""
import os, pathlib, shutil
from lmplay.base.runner_list import *
from lmplay.base.runner_list import discover
home = pathlib.Path({str(tmp_path)!r})
assert [broken.name for broken in broken_experiments()] == ["early"]
shutil.copytree(home / "early", home / "later")
text = {VERSIONS!r}
for name in ("early", "later"):
    (home / name / "versions.py").write_text(text.format(name=name))
discover()
assert {{"early", "later"}} <= set(MODEL_RUNNERS) and not broken_experiments()
"""
    run_python(code, LMPLAY_EXPERIMENTS=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")


def test_an_installed_package_brings_experiments(tmp_path: Path) -> None:
    experiment(tmp_path / "site", "their_package", name="theirs")
    information = tmp_path / "site" / "their_package-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: their_package\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[lmplay.experiments]\ntheirs = their_package.versions\ngone = package_that_is_gone.versions\n"
    )
    rows = listed(PYTHONPATH=os.pathsep.join([str(REPO), str(tmp_path / "site")]))
    assert rows["theirs"]["module"] == "their_package.versions"
    assert "No module named 'package_that_is_gone'" in rows["gone"]["broken"]
    assert "their_package" in rows["gone"]["broken"]


def test_the_registry_alone_needs_no_torch() -> None:
    run_python(
        "import sys, lmplay.base.runner_list, lmplay.exp; lmplay.MODEL_RUNNERS; assert 'torch' not in sys.modules",
        fresh=True,
    )


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(WrongUsageError, match="no experiment is called 'gpt2sh'; did you mean gpt2ish"):
        get_runner("gpt2sh")
    with pytest.raises(WrongUsageError, match="lmplay list"):
        get_runner("zzz")
