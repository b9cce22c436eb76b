"""The index of experiments: what `lmplay list` and `lmplay describe` last said, kept with the caches.

Read in a millisecond, so that the list is on the screen at once; renewed behind it by the real commands.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmplay.utils.files import to_json, write_atomically
from lmplay.utils.paths import cache_root
from lmplay_tui.services.commands import Commands

_VERSION = 1
_MOST_DESCRIPTIONS = 300
USUAL_ROWS = 4
"""Rows at once for which the memory is estimated, unless others are asked for."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One registered name, or a module that could not be imported (`broken` says why)."""

    name: str
    description: str = ""
    long_name: str = ""
    module: str = ""
    broken: str | None = None

    @property
    def family(self) -> str:
        """The folder of the experiment: `gpt2ish` for `lmplay.exp.gpt2ish.versions`."""
        parts = self.module.split(".")
        return parts[-2] if len(parts) > 1 else self.module


@dataclass(frozen=True, kw_only=True)
class Index:
    experiments: tuple[Experiment, ...] = ()
    descriptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    known: bool = False
    """Whether `lmplay list` was ever asked."""


class ExperimentIndex:
    """`now` is what is known; `renew` and `describe` ask, in processes of their own."""

    def __init__(self, commands: Commands, file: Path | None = None) -> None:
        self._commands = commands
        self._file = file or cache_root() / "workbench" / f"experiments-{_installation()}.json"
        self.now = self._read()

    async def renew(self) -> Index:
        """Ask `lmplay list`. Raises `CommandError`."""
        rows = await self._commands.json("list")
        self.now = Index(experiments=_experiments(rows), descriptions=self.now.descriptions, known=True)
        self._write()
        return self.now

    def description(self, name: str, settings: Sequence[str] = (), rows: int = USUAL_ROWS) -> Mapping[str, Any] | None:
        """What `lmplay describe` said of the experiment, as its code is now; None when that isn't known."""
        return self.now.descriptions.get(self._key(name, settings, rows))

    async def describe(self, name: str, settings: Sequence[str] = (), rows: int = USUAL_ROWS) -> Mapping[str, Any]:
        """As `description`, asked for when it isn't known. Raises `CommandError`."""
        key = self._key(name, settings, rows)
        if key not in self.now.descriptions:
            sets = [part for setting in settings for part in ("--set", setting)]
            found = await self._commands.json("describe", name, *sets, "--mini-batch-size", str(rows))
            kept = dict(list(self.now.descriptions.items())[-_MOST_DESCRIPTIONS:])
            self.now = Index(experiments=self.now.experiments, descriptions={**kept, key: found}, known=self.now.known)
            self._write()
        return self.now.descriptions[key]

    def source(self, name: str) -> Path | None:
        """The folder of an experiment's code, where it can be found without importing it."""
        module = next((one.module for one in self.now.experiments if one.name == name), "")
        return _folder_of(module)

    def _key(self, name: str, settings: Sequence[str], rows: int) -> str:
        folder = self.source(name)
        files = sorted(folder.glob("*.py")) if folder is not None else []
        stamp = zlib.crc32("".join(f"{file.name}{_changed(file)}" for file in files).encode())
        return f"{name} {stamp:08x} {rows} {' '.join(settings)}".rstrip()

    def _read(self) -> Index:
        try:
            content = json.loads(self._file.read_bytes())
            if content["version"] != _VERSION:
                return Index()
            descriptions = {str(key): dict(value) for key, value in content["descriptions"].items()}
            return Index(experiments=_experiments(content["list"]), descriptions=descriptions, known=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Index()  # not there, or of another time: asked anew

    def _write(self) -> None:
        content = {
            "version": _VERSION,
            "list": [vars(experiment) for experiment in self.now.experiments],
            "descriptions": self.now.descriptions,
        }
        try:
            write_atomically(self._file, to_json(content), durable=False)
        except OSError:
            return  # no place for a cache: the next start asks again


def _experiments(rows: Any) -> tuple[Experiment, ...]:
    fields = ("name", "description", "long_name", "module", "broken")
    return tuple(Experiment(**{key: row[key] for key in fields if row.get(key) is not None}) for row in rows)


def _folder_of(module: str) -> Path | None:
    """`lmplay.exp.x.versions` -> its folder, by the path of the package alone: nothing of it is run."""
    top, *below = module.split(".")
    if not top or not below:
        return None
    package = sys.modules.get(top)
    spec = package.__spec__ if package is not None else importlib.util.find_spec(top)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    for place in places:
        folder = Path(place, *below[:-1])
        if folder.is_dir():
            return folder
    return None


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _installation() -> str:
    """Each Python environment has experiments of its own."""
    return f"{zlib.crc32(sys.prefix.encode()):08x}"
