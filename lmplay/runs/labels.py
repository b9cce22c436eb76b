"""What people attach to a run after the fact, tags and a note, and the housekeeping of whole runs.

None of this is the worker's: labels are a file of their own, and a run that is being written is never moved or deleted.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lmplay.runs.layout import ARCHIVE, LABELS, check_run_name, list_runs, read_json_object
from lmplay.runs.resolve import resolve_run
from lmplay.runs.writer import lock_run
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json, write_atomically

_TAG = re.compile(r"[^\s,:\"']{1,60}")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """`group` joins runs that belong together, as those of a sweep; runs that differ in the seed group themselves."""

    tags: tuple[str, ...] = ()
    note: str = ""
    group: str = ""


def read_labels(path: Path) -> Labels:
    """The labels of a run; a run without the file, or with a damaged one, has none."""
    try:
        content = read_json_object(path / LABELS, of=f"the run {path.name}")
    except LMPlayError:
        return Labels()
    tags = content.get("tags")
    return Labels(
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        note=str(content.get("note") or ""),
        group=str(content.get("group") or ""),
    )


def check_tag(tag: str) -> str:
    """`tag` itself when it can be one; `WrongUsageError` when a filter could not name it."""
    if not _TAG.fullmatch(tag):
        raise WrongUsageError(f"{tag!r} can't be a tag: up to 60 characters without blanks, commas, colons and quotes")
    return tag


def change_labels(
    path: Path,
    *,
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
    note: str | None = None,
    group: str | None = None,
) -> Labels:
    """Add and remove tags, replace the note or group; two people doing so at once both succeed. Returns the labels."""
    for tag in add:
        check_tag(tag)
    try:
        with FileLock(path / f".{LABELS}.lock", timeout=10):
            old = read_labels(path)
            gone = set(remove)
            labels = Labels(
                tags=tuple(tag for tag in dict.fromkeys((*old.tags, *add)) if tag not in gone),
                note=old.note if note is None else note,
                group=old.group if group is None else group,
            )
            content: dict[str, Any] = {"tags": list(labels.tags), "note": labels.note, "group": labels.group}
            write_atomically(path / LABELS, to_json(content, indent=2) + "\n")
            return labels
    except OSError as error:
        raise LMPlayError(f"the labels of {path.name} can't be written: {error.strerror}") from error


def rename_run(path: Path, name: str) -> Path:
    """Give the run another name (its folder's); refused while it is being written. Returns the new path."""
    target = path.with_name(check_run_name(name))
    return _move(path, target)


def archive_run(path: Path) -> Path:
    """Take the run out of the list without touching it: into `.archive` beside it."""
    return _move(path, path.parent / ARCHIVE / path.name)


def restore_run(path: Path) -> Path:
    """The way back from the archive."""
    return _move(path, path.parent.parent / path.name)


def delete_run(path: Path) -> None:
    """Remove the run with all its checkpoints, for good; refused while it is being written."""
    # Hidden first, so that nobody meets a half deleted run, not even after a crash in the middle.
    doomed = _move(path, path.with_name(f".deleted-{path.name}"))
    try:
        shutil.rmtree(doomed)
    except OSError as error:
        raise LMPlayError(f"the run {path.name} is only partly deleted: {error} (what is left: {doomed})") from error


def _move(path: Path, target: Path) -> Path:
    lock = lock_run(path)
    try:
        if target.exists():
            raise WrongUsageError(f"there is a run named {target.name} in {target.parent} already")
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    except OSError as error:
        raise LMPlayError(f"the run {path.name} can't be moved to {target}: {error.strerror}") from error
    finally:
        lock.release()
    return target


def resolve_runs(names: Iterable[str], *, root: Path | None = None) -> list[Path]:
    """Runs by name (as `resolve_run`), by the name of a group, or by a pattern such as `wide-*`; each run once."""
    runs = list_runs(root)
    found: dict[Path, None] = {}
    for name in names:
        if any(sign in name for sign in "*?["):
            matching = [run for run in reversed(runs) if fnmatch.fnmatchcase(run.name, name)]
            if not matching:
                raise WrongUsageError(f"no run is named like {name!r}")
            found |= dict.fromkeys(matching)
            continue
        grouped = [run for run in reversed(runs) if read_labels(run).group == name]
        if grouped and not any(run.name == name for run in runs):
            found |= dict.fromkeys(grouped)
        else:
            found[resolve_run(name, root=root)] = None
    return list(found)
