"""Writing files so that a reader, a crash or a power cut never meets half of one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable. Does nothing where folders cannot be synced (Windows, some network
    disks).
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Replace `path` with `content` in one step: readers see the old file or the new one.

    `durable` waits until the disk has it; leave it off for what is rewritten every few seconds.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made as any file is, readable as the umask says: mkstemp's would hide runs from colleagues, and the umask can't be
    # asked for without changing it for all threads.
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinities become the strings "NaN", "Infinity" and "-Infinity".

    Half a surrogate pair, which no UTF-8 can hold, makes the whole escaped.
    """

    def dump(*, ascii_only: bool) -> str:
        return json.dumps(_finite(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False, default=str)

    text = dump(ascii_only=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return dump(ascii_only=True)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
