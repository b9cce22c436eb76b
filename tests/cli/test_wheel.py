"""The built wheel carries the plans and works from any folder, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_wheel_trains_from_an_empty_folder(tmp_path: Path, runs_folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(REPO)],
        check=True,
        timeout=200,
    )
    [wheel] = tmp_path.glob("lmplay-*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    own = next((home / "lib").glob("python*/site-packages"))
    install = [sys.executable, "-m", "pip", "--python", str(home / "bin/python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, str(wheel)], check=True, timeout=200)
    # What lmplay depends on comes from the environment of the tests, as plain folders: without the links of editable
    # installs, so that only the wheel can provide lmplay.
    (own / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")

    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [str(home / "bin" / arguments[0]), *arguments[1:]],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = call("python", "-c", "import lmplay; print(lmplay.__file__)")
    assert Path(where.strip()).is_relative_to(home), "the wheel itself is what runs"
    assert "test_runner" in call("lmp_trainer", "--exp", "list")
    call(
        "lmplay", "run", "test_runner", "--plan", "quickstart", "--steps", "2", "--name", "installed", "--device", "cpu"
    )
    assert (runs_folder / "installed/checkpoints/2/model.safetensors").is_file()
    assert call("lmplay", "generate", "installed", "--prompt", "The", "--max-tokens", "3").startswith("The")
