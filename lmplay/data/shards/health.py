"""Whether the files of a store are what its manifest says. Called by `prepare.py` and `lmplay data verify`.

A store's sums are computed once; beside the store stands what size and time its files had then. As long as these stay,
opening a store costs one `stat` a file; a file that anyone has touched since is summed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from lmplay.data.batch import Progress
from lmplay.data.shards.store import Manifest
from lmplay.utils.files import write_atomically


def damaged_shards(
    folder: Path, manifest: Manifest, *, thorough: bool = False, progress: Progress | None = None
) -> list[int]:
    """Numbers of the shards that have a missing or changed file. `thorough` sums every file, whatever its times."""
    known = {} if thorough else _known_marks(folder)
    damaged = []
    summed = 0
    for number, shard in enumerate(manifest.shards):
        for record in shard.files.values():
            path = folder / record.name
            mark = _mark(path)
            if mark is not None and mark[0] == record.bytes and (not thorough and known.get(record.name) == mark):
                continue
            if mark is None or mark[0] != record.bytes or _sum(path) != record.sha256:
                damaged.append(number)
                break
            summed += record.bytes
            if progress is not None:
                progress(f"verifying {folder.name} (bytes)", summed, manifest.size)
    if not damaged:
        remember_health(folder, manifest)
    return damaged


def remember_health(folder: Path, manifest: Manifest) -> None:
    """Note the sizes and times of files whose sums are known to be right. Its own time tells when a store was used."""
    marks = {record.name: _mark(folder / record.name) for shard in manifest.shards for record in shard.files.values()}
    path = health_path(folder)
    with contextlib.suppress(OSError):  # a cache that can't be written only costs time
        if _known_marks(folder) == marks:
            path.touch()
        else:
            write_atomically(path, json.dumps(marks), durable=False)


def health_path(folder: Path) -> Path:
    return folder.with_name(folder.name + ".checked")


def _known_marks(folder: Path) -> dict[str, list[int] | None]:
    try:
        found = json.loads(health_path(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _mark(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _sum(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
