"""What `run.json` says of how a run came about, beside what was asked: code, versions, machine, command line. No
torch.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("lmplay", "torch", "numpy", "tiktoken", "datasets", "safetensors")


def provenance(*, experiment_file: str) -> dict[str, Any]:
    """`git`, `versions`, `host`, `command` and `code` (a sum over the experiment's files) of a run made here and
    now.
    """
    return {
        "git": git_state(Path(experiment_file).parent),
        "code": code_state(experiment_file),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "host": platform.node(),
        "platform": platform.platform(),
        "user": _user(),
        "folder": str(Path.cwd()),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def code_state(experiment_file: str) -> dict[str, Any]:
    folder = Path(experiment_file).parent
    return {"folder": str(folder), "sum": code_sum(folder)}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, branch and whether tracked files differ from it; `None` outside a checkout or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")),
    }


def code_sum(folder: Path) -> str:
    """SHA-256 over the Python files of an experiment, so that a changed model is noticed when a run goes on."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry in the password database, as in some containers
        return str(os.getuid())
