"""The list of all experiments, remembered between processes: `lmplay list` and the workbench ask for it.

Discovering experiments imports their models, and with them torch, which takes seconds. So the list is kept in the cache
together with the size and time of every source file it came from, and made anew when one of them has changed. A list
with a broken experiment in it is never kept: what mends it may lie anywhere.
"""

from __future__ import annotations

import contextlib
import json
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lmplay.base.discovery import Candidate, find_experiments
from lmplay.base.runner_list import MODEL_RUNNERS, broken_experiments
from lmplay.utils.files import write_atomically
from lmplay.utils.paths import cache_root

FORMAT = 1


def list_experiments() -> list[dict[str, Any]]:
    """Every registered name and every broken experiment, in the shape of `lmplay list --json`."""
    candidates = list(find_experiments())
    remembered = _remembered(candidates)
    if remembered is not None:
        return remembered
    rows = _discovered()
    if all(row["broken"] is None for row in rows):
        _remember(candidates, rows)
    return rows


def _discovered() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "description": entry.description,
            "long_name": entry.long_name,
            "module": entry.module,
            "broken": None,
        }
        for entry in MODEL_RUNNERS.values()
    ]
    rows += [
        {
            "name": broken.name,
            "description": "",
            "long_name": broken.name,
            "module": broken.module,
            "broken": f"{broken.error} [{broken.file}]",
        }
        for broken in broken_experiments()
    ]
    return sorted(rows, key=lambda row: (row["broken"] is not None, row["name"]))


def _file() -> Path:
    return cache_root() / "experiments.json"


def _key(candidates: Iterable[Candidate]) -> list[Any]:
    return [FORMAT, sys.version, [[found.module, found.file, found.problem] for found in candidates]]


def _remembered(candidates: list[Candidate]) -> list[dict[str, Any]] | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # absent, torn or of another shape: none
        kept = json.loads(_file().read_text("utf-8"))
        rows: list[dict[str, Any]] = kept["rows"]
        if kept["key"] == _key(candidates) and kept["sources"] == _stamps(kept["sources"]):
            return rows
    return None


def _remember(candidates: list[Candidate], rows: list[dict[str, Any]]) -> None:
    kept = {"key": _key(candidates), "sources": _stamps(_sources(candidates)), "rows": rows}
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(), json.dumps(kept), durable=False)


def _stamps(files: Iterable[str]) -> dict[str, list[int]]:
    """Raises `FileNotFoundError` for a file that has gone."""
    stats = {file: Path(file).stat() for file in files}
    return {file: [stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()}


def _sources(candidates: Iterable[Candidate]) -> list[str]:
    """The files of the modules that were imported by now: of lmplay, of every experiment's package, and all others but
    those of Python and of installed packages.
    """
    packages = {"lmplay", *(found.module.partition(".")[0] for found in candidates)}
    foreign = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
    return sorted(
        file
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None)) is not None
        and Path(file).is_file()
        and (name.partition(".")[0] in packages or not file.startswith(foreign))
    )
