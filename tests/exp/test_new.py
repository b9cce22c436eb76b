"""`lmplay new`: the copy is complete, named apart, and works; so does an experiment from an installed package."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from lmplay.cli.copy_experiment import Renaming, copy_experiment, rename, renamed
from lmplay.utils.errors import WrongUsageError
from tests.warm import client as warm

REPO = Path(__file__).resolve().parents[2]


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return warm.run([*arguments], env={**os.environ, **environment})


def test_a_copy_is_registered_and_its_next_commands_work(tmp_path: Path) -> None:
    home = tmp_path / "ideas"
    done = run_python("-m", "lmplay", "new", "wide_ff", "--into", str(home))
    assert done.returncode == 0, done.stderr
    assert f"export LMPLAY_EXPERIMENTS={home}" in done.stdout
    assert [line.strip() for line in done.stdout.splitlines()[-3:]] == [
        "lmplay describe wide_ff",
        "lmplay check wide_ff --tiny",
        "lmplay run wide_ff --plan quickstart",
    ]
    code = """
from lmplay.base.runner_list import MODEL_RUNNERS, broken_experiments, get_runner
from lmplay.checks import Subject, run_checks
assert not broken_experiments()
new = {"wide_ff", "wide_ff_med", "wide_ff_large", "wide_ff_small", "s_wide_ff", "wide_ff_test_runner"}
assert new <= set(MODEL_RUNNERS) and {"gpt2ish", "test_runner"} <= set(MODEL_RUNNERS)
runner = get_runner("wide_ff_med")
assert runner.model_class.__module__ == "lmplay.exp.wide_ff.model" and runner.model_class.__name__ == "WideFf"
assert runner.overrides["num_blocks"] == 24
assert runner.description == "Copy of gpt2ish_med; say here what is different."
names = ["gradients", "causality", "cache", "determinism"]
results = list(run_checks(Subject(get_runner("wide_ff"), tiny=True), names))
assert all(result.ok for result in results), results
assert get_runner("wide_ff_small").build_model(max_len=8).name == "wide_ff_num_blocks2_max_len8"
"""
    done = run_python("-c", code, LMPLAY_EXPERIMENTS=str(home))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Wide-FF", "cannot name an experiment"),
        ("class", "cannot name an experiment"),
        ("gpt2ish", "'gpt2ish' is taken"),
        ("there", "is there already"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(WrongUsageError, match=message):
        copy_experiment("gpt2ish", name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_unknown_experiment_cannot_be_copied(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match="did you mean gpt2ish"):
        copy_experiment("gpt2isch", "mine", tmp_path)


def test_a_copy_of_another_experiment_takes_its_own_name(tmp_path: Path) -> None:
    copied = copy_experiment("gpt2ish_with_aux_loss", "further", tmp_path)
    assert (copied.class_name, copied.names) == ("Further", ["further"])
    text = (copied.folder / "versions.py").read_text()
    assert "from .model import Further\n" in text
    assert 'description="Copy of gpt2ish_with_aux_loss; say here what is different.",' in text
    assert (copied.folder / "__init__.py").read_text() == (
        '"""A copy of gpt2ish_with_aux_loss: say here what is different."""\n'
    )
    assert 'version="further",' in (copied.folder / "model.py").read_text()


def test_names_of_versions_follow_the_name_of_the_folder() -> None:
    assert renamed(["small", "large"], "folder", "mine") == {"small": "mine", "large": "mine_large"}


def test_renaming_touches_whole_words_only() -> None:
    code = (
        "from their_package.model import Net, Network  # Net stays here\n"
        "import other.their_package.model\n"
        "x = Net(version='net', label='net_large', text='a net')\n"
        "\n"
        "\n"
        "@expose_runner(\n"
        "    'net',\n"
        "    description='one '\n"
        "    'two',\n"
        ")\n"
        "def runner(): return Net\n"
    )
    renaming = Renaming(
        identifiers={"Net": "Mine"}, names={"net": "mine"}, package=("their_package", "lmplay.exp.mine")
    )
    assert rename(code, renaming) == (
        "from lmplay.exp.mine.model import Mine, Network  # Net stays here\n"
        "import other.their_package.model\n"
        "x = Mine(version=\"mine\", label='net_large', text='a net')\n"
        "\n"
        "\n"
        "@expose_runner(\n"
        '    "mine",\n'
        '    description="Copy of net; say here what is different.",\n'
        ")\n"
        "def runner(): return Mine\n"
    )


def test_an_experiment_in_a_package_of_its_own_is_found_after_pip_install(tmp_path: Path) -> None:
    """As docs/adding_an_experiment.md shows it: a wheel with an entry point, installed by pip without a network."""
    source = copy_experiment("gpt2ish", "their_idea", tmp_path / "source").folder
    wheel = make_wheel(
        tmp_path, "their_idea", source, entry_points="[lmplay.experiments]\nidea = their_idea.versions\n"
    )
    site = tmp_path / "site"
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site), str(wheel)]
    installed = run_python(*pip, PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert installed.returncode == 0, installed.stderr

    described = run_python(
        "-m", "lmplay", "describe", "their_idea_small", PYTHONPATH=os.pathsep.join([str(REPO), str(site)])
    )
    assert described.returncode == 0, described.stderr
    assert "TheirIdea(max_len=1024, num_heads=4, num_blocks=2, embed_dim=256" in described.stdout


def make_wheel(folder: Path, name: str, source: Path, *, entry_points: str) -> Path:
    """A wheel is a zip file with a list of what it holds."""
    files = {f"{name}/{file.name}": file.read_bytes() for file in source.glob("*.py")}
    information = f"{name}-1.0.dist-info"
    files[f"{information}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    files[f"{information}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{information}/entry_points.txt"] = entry_points.encode()
    sums = {
        path: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        for path, data in files.items()
    }
    record = "".join(f"{path},sha256={sums[path]},{len(data)}\n" for path, data in files.items())
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n".encode()
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return wheel
