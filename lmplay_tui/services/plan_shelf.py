"""The plans there are: the ready ones, those in the current folder, and those that a person opened by path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmplay.plans import Plan, list_plans, load_plan, plans_folder
from lmplay.utils.errors import LMPlayError

_LARGEST_FILE = 1 << 20
_MOST_FILES = 200


@dataclass(frozen=True, kw_only=True)
class ShelvedPlan:
    """One plan. `key` is what the commands call it: a name of a ready plan, else a path."""

    key: str
    file: Path
    plan: Plan | None = None
    problem: str = ""
    """Why it can't be read, in one line."""

    @property
    def ready(self) -> bool:
        """It came with lmplay."""
        return self.key == self.file.stem

    @property
    def name(self) -> str:
        return self.file.stem


def read_plans(folder: Path, opened: Sequence[str] = ()) -> tuple[ShelvedPlan, ...]:
    """Those of `folder` and its `plans` first, then those opened by path, then the ready ones. Reads the disk."""
    ready = plans_folder()
    own = [file for file in _plan_files(folder) if file.parent != ready]
    other = [path for path in map(Path, opened) if path not in own]
    files = [(str(file), file) for file in (*own, *other)]
    files += [(name, ready / f"{name}.json") for name in list_plans()]
    return tuple(_read(key, file) for key, file in files)


def copy_plan(plan: ShelvedPlan, folder: Path, name: str) -> Path:
    """A copy in `folder` to be changed. Raises `LMPlayError`."""
    target = folder / f"{Path(name).name.removesuffix('.json')}.json"
    if target.exists():
        raise LMPlayError(f"{target} is there already; take another name")
    try:
        shutil.copyfile(plan.file, target)
    except OSError as error:
        raise LMPlayError(f"{target} can't be written: {error.strerror or error}") from error
    return target


def _read(key: str, file: Path) -> ShelvedPlan:
    try:
        return ShelvedPlan(key=key, file=file, plan=load_plan(key))
    except LMPlayError as error:
        return ShelvedPlan(key=key, file=file, problem=str(error))


def _plan_files(folder: Path) -> Iterator[Path]:
    """JSON files that look like plans, right or wrong: folders hold other JSON, too."""
    for place in (folder, folder / "plans"):
        try:
            files = sorted(place.glob("*.json"))[:_MOST_FILES]
        except OSError:
            continue
        yield from (file for file in files if _looks_like_a_plan(file))


def _looks_like_a_plan(file: Path) -> bool:
    try:
        if file.stat().st_size > _LARGEST_FILE:
            return False
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    try:
        content: Any = json.loads(text)
    except ValueError:
        return '"stages"' in text and '"datasets"' in text  # a comma too many, while one edits
    if not isinstance(content, dict) or not content:
        return False
    short = all(isinstance(stage, dict) and "dataset" in stage for stage in content.values())
    return short or {"stages", "datasets"} <= content.keys()
