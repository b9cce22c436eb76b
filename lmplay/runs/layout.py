"""The folders and files of a run: where runs live, what they are called, what is in one, and how a new one begins.

Everything that reads or writes a run asks here for names; `docs/run_directory.md` describes the same for people.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json, write_atomically

FORMAT = 1

RUN = "run.json"
STATUS = "status.json"
METRICS = "metrics.jsonl"
SYSTEM = "system.jsonl"
EVENTS = "events.jsonl"
CONTROL = "control"
CHECKPOINTS = "checkpoints"
LOG = "worker.log"
LOCK = "writer.lock"
WORKER = "worker.json"  # who was started for this run, until that process has taken the lock
LABELS = "labels.json"  # tags and notes: written by people, so not part of what the worker owns
ARCHIVE = ".archive"
QUEUE = ".queue"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,119}")
_RESERVED = frozenset({"last", "latest", "best"})


def runs_root() -> Path:
    """`$LMPLAY_RUNS`, or `runs` in the current folder. Not created here."""
    configured = os.environ.get("LMPLAY_RUNS")
    return (Path(configured).expanduser() if configured else Path("runs")).absolute()


def new_run_name(experiment: str) -> str:
    """`<experiment>-<yyyymmdd-hhmmss>-<4 hex>`; the hex digits keep two starts in one second apart."""
    base = re.sub(r"[^A-Za-z0-9._+=-]+", "_", experiment).lstrip("._-") or "run"
    return f"{base[:80]}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def check_run_name(name: str) -> str:
    """`name` itself when it can be a run's; `WrongUsageError` when it could escape the folder or be mistaken."""
    if not _NAME.fullmatch(name):
        raise WrongUsageError(
            f"{name!r} can't be a run's name: use up to 120 letters, digits and . _ + = -, beginning with a letter or "
            "a digit"
        )
    if name in _RESERVED:
        raise WrongUsageError(f"{name!r} can't be the name of a run: the word stands for a run or checkpoint already")
    return name


def free_path(root: Path, name: str) -> Path:
    """Where a run of that name would be; `WrongUsageError` when none can have it, or one has it."""
    path = root / check_run_name(name)
    if path.exists():
        raise WrongUsageError(f"there is a run named {name} already: choose another name ({root})")
    return path


def create_run(experiment: str, *, name: str | None = None, root: Path | None = None, **asked: Any) -> Path:
    """Make the folder of a new run with `run.json` and a status of `queued`; returns its path.

    `asked` is what goes into `run.json` beside the experiment: overrides, plan, config, seed, git state, versions,
    host, command line. Raises `WrongUsageError` when the name is taken.
    """
    path = free_path(root or runs_root(), name or new_run_name(experiment))
    # Made under a hidden name and renamed, so that nobody meets a run of which half is there.
    new = path.with_name(f".new-{path.name}-{secrets.token_hex(4)}")
    try:
        (new / CONTROL).mkdir(parents=True)
        (new / CHECKPOINTS).mkdir()
        created = time.time()
        write_atomically(new / STATUS, to_json({"state": "queued", "updated": created}) + "\n")
        write_run_file(new, {"format": FORMAT, "experiment": experiment, "created": created, **asked})
        new.rename(path)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            free_path(path.parent, path.name)  # someone else took the name in between: says so
        raise LMPlayError(f"the run {path.name} can't be made in {path.parent}: {error.strerror}") from error
    return path


def write_run_file(path: Path, asked: Mapping[str, Any]) -> None:
    """Replace `run.json`: what was asked, for people too, hence indented. Its time stays that of the run's making."""
    file = path / RUN
    made = file.stat().st_mtime_ns if file.exists() else None
    write_atomically(file, to_json(asked, indent=2) + "\n")
    if made is not None:
        os.utime(file, ns=(made, made))


def read_run_file(path: Path) -> dict[str, Any]:
    """What `run.json` holds. `LMPlayError`, in one line, when it is missing, unreadable or from a newer lmplay."""
    asked = read_json_object(path / RUN, of=f"the run {path.name}")
    written = asked.get("format", FORMAT)
    if not isinstance(written, int) or written > FORMAT:
        raise LMPlayError(
            f"the run {path.name} was written by a newer lmplay (run format {written}, this one reads {FORMAT}): "
            "update lmplay"
        )
    return asked


def read_json_object(path: Path, *, of: str) -> dict[str, Any]:
    """The JSON object in a file of a run; every way in which that fails is one line that names the file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise LMPlayError(
            f"{of} has no {path.name} (looked for {path}): the folder is incomplete or is no run"
        ) from None
    except NotADirectoryError:
        raise LMPlayError(f"{of} is not a folder: {path.parent}") from None
    except OSError as error:
        raise LMPlayError(f"{of} can't be read: {error.strerror} ({path})") from error
    except (ValueError, RecursionError) as error:
        raise LMPlayError(f"{path.name} of {of} is damaged ({path}: {error})") from error
    if not isinstance(content, dict):
        raise LMPlayError(f"{path.name} of {of} is damaged ({path} does not hold an object)")
    return content


def is_run(path: Path) -> bool:
    """A folder that holds a run, even an unreadable one or what is left of a half deleted one."""
    return _made(path) is not None


def _made(path: Path | str) -> float | None:
    """When the run in `path` was made, in seconds since 1970; None where there is none, 0 where that can't be seen."""
    for name in (RUN, STATUS, METRICS):
        try:
            # Rewriting run.json keeps its time, so it is the run's; the folder's is not.
            return os.stat(f"{path}/{name}").st_mtime  # noqa: PTH116 - a Path object each is half of what a list costs
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return 0.0
    return None


def list_runs(root: Path | None = None, *, archived: bool = False) -> list[Path]:
    """The folders of all runs, newest first; those that can't be read are among them, so that a list can say so."""
    folder = root or runs_root()
    if archived:
        folder = folder / ARCHIVE
    found: list[tuple[float, Path]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if (made := _made(entry.path)) is not None:
                    found.append((made, Path(entry.path)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LMPlayError(f"the runs in {folder} can't be listed: {error.strerror}") from error
    return [path for _, path in sorted(found, key=lambda item: (-item[0], item[1].name))]
