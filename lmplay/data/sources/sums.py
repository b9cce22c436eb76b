"""SHA-256 sums of source files, remembered as long as a file's size, time and inode stay what they were.

A file of many gigabytes is read once for its sum; later starts cost one `stat` a file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from lmplay.data.batch import Progress
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import write_atomically
from lmplay.utils.paths import cache_root

# A file that changes again within the clock's grain keeps its time: sums of files this young are not remembered.
_SETTLED_SECONDS = 2.0
_CHUNK = 1 << 22


def file_sums(files: Sequence[Path], progress: Progress | None = None) -> list[str]:
    """SHA-256 of each file's content, in order."""
    absolute = [file.absolute() for file in files]
    memory = _memory(absolute)
    known = _read(memory)
    found: dict[str, list[str | int]] = {}
    total = sum(file.stat().st_size for file in absolute)
    done = 0
    for file in absolute:
        status = file.stat()
        mark = [status.st_size, status.st_mtime_ns, status.st_ino]
        entry = known.get(str(file))
        if entry is None or entry[:3] != mark:
            entry = [*mark, _sum(file, done, total, progress)]
            if time.time() - status.st_mtime < _SETTLED_SECONDS:
                found[str(file)] = [0, 0, 0, entry[3]]  # a mark that no file has
                done += status.st_size
                continue
        found[str(file)] = entry
        done += status.st_size
    if found != known:
        try:
            write_atomically(memory, json.dumps(found), durable=False)
        except OSError:
            return [str(found[str(file)][3]) for file in absolute]  # a cache that can't be written only costs time
    return [str(found[str(file)][3]) for file in absolute]


def _sum(file: Path, before: int, total: int, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                before += len(chunk)
                if progress is not None:
                    progress("reading the sums of source files (bytes)", before, total)
    except OSError as error:
        raise LMPlayError(f"{file} can't be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _memory(files: Sequence[Path]) -> Path:
    name = hashlib.sha256("\x00".join(map(str, files)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_root() / "sums" / f"{name}.json"


def _read(memory: Path) -> dict[str, list[str | int]]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
