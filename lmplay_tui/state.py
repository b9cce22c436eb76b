"""What the workbench remembers from one start to the next: the screen, marks, sorting, sizes of panes.

One JSON file. What belongs to a folder of runs (marks, baseline, filter) is kept apart for each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from lmplay.utils.files import to_json, write_atomically

Kept = TypeVar("Kept", str, int, float, bool, list, dict)  # type: ignore[type-arg]


def state_folder() -> Path:
    """`$LMPLAY_STATE`, or the platform's folder for what a program remembers. Not created here."""
    configured = os.environ.get("LMPLAY_STATE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_state_dir("lmplay"))


def config_file() -> Path:
    """`$LMPLAY_CONFIG`, or `workbench.toml` in the platform's folder of settings."""
    configured = os.environ.get("LMPLAY_CONFIG")
    return Path(configured) if configured else Path(platformdirs.user_config_dir("lmplay")) / "workbench.toml"


class State:
    """`get("runs.sort", "-created")`, `set(...)`; `of_runs` is the same for what belongs to one folder of runs."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._content: dict[str, Any] = {}
        self._dirty = False
        if file is not None:
            try:
                content = json.loads(file.read_bytes())
            except (OSError, ValueError):
                content = {}  # not there yet, or torn: begin anew, it is only convenience
            self._content = content if isinstance(content, dict) else {}

    def get(self, name: str, default: Kept) -> Kept:
        """What was kept, unless it is of another kind than `default`: files of other versions do no harm."""
        value = self._content.get(name, default)
        fits = isinstance(value, type(default)) or (isinstance(default, float) and isinstance(value, int))
        return value if fits else default

    def set(self, name: str, value: object) -> None:
        if self._content.get(name) != value:
            self._content[name] = value
            self._dirty = True

    def of_runs(self, root: Path) -> RootState:
        return RootState(self, str(root))

    def save(self) -> None:
        """Write what changed. A disk that can't be written costs the memory of this session, no more."""
        if not self._dirty or self._file is None:
            return
        self._dirty = False
        try:
            write_atomically(self._file, to_json(self._content, indent=1) + "\n", durable=False)
        except OSError:
            self._file = None


class RootState:
    """The part of the state that belongs to one folder of runs."""

    def __init__(self, state: State, root: str) -> None:
        self._state, self._root = state, root

    def get(self, name: str, default: Kept) -> Kept:
        return self._state.get(f"{self._root}:{name}", default)

    def set(self, name: str, value: object) -> None:
        self._state.set(f"{self._root}:{name}", value)
