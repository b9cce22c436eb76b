"""The token cache as a whole: what is in it, whether it is sound, and what can go. Called by `lmplay data`."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lmplay.data.batch import Progress
from lmplay.data.rows.rowplan import packings_folder
from lmplay.data.shards.health import damaged_shards, health_path
from lmplay.data.shards.prepare import CODE_VERSION
from lmplay.data.shards.store import Manifest, lock_path, partial_path, read_manifest, stores_folder

_BESIDES = (".lock", ".checked", ".partial")


@dataclass(frozen=True)
class StoreInfo:
    """A store in the cache."""

    folder: Path
    manifest: Manifest
    last_used: float
    """Seconds since the epoch."""

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Leftover:
    """Something that can go, and why."""

    path: Path
    size: int
    reason: str


def stores() -> list[StoreInfo]:
    """All complete stores, the last used first."""
    found = []
    for folder in _folders():
        manifest = read_manifest(folder)
        if manifest is not None:
            mark = health_path(folder)
            used = mark.stat().st_mtime if mark.exists() else folder.stat().st_mtime
            found.append(StoreInfo(folder, manifest, used))
    return sorted(found, key=lambda store: -store.last_used)


def verify(store: StoreInfo, progress: Progress | None = None) -> list[int]:
    """Numbers of the damaged shards after every byte was read. Damage is remembered: the next use mends it."""
    damaged = damaged_shards(store.folder, store.manifest, thorough=True, progress=progress)
    if damaged:
        health_path(store.folder).unlink(missing_ok=True)
    return damaged


def leftovers(*, unused_days: float | None = None) -> list[Leftover]:
    """What interrupted, removed and older work has left; and stores that were not used for so many days, if given."""
    found = []
    names = {folder.name for folder in _folders()}
    for path in sorted(stores_folder().iterdir()) if stores_folder().is_dir() else []:
        if path.name.endswith(".partial"):
            found.append(Leftover(path, _size(path), "an unfinished preparation"))
        elif path.suffix in _BESIDES and path.stem not in names and not partial_path(path.with_suffix("")).exists():
            found.append(Leftover(path, _size(path), "its tokens are gone"))
        elif path.name in names and not _of_this_version(path):
            found.append(Leftover(path, _size(path), "made by another version"))
    if unused_days is not None:
        for store in (store for store in stores() if _of_this_version(store.folder)):
            idle = (time.time() - store.last_used) / 86400
            if idle >= unused_days:
                found.append(Leftover(store.folder, _size(store.folder), f"not used for {idle:.0f} days"))
    going = {leftover.path.name for leftover in found}
    for path in sorted(packings_folder().iterdir()) if packings_folder().is_dir() else []:
        store_name = _store_of(path)
        if store_name is None or store_name not in names or store_name in going:
            found.append(Leftover(path, _size(path), "row plans of tokens that are gone"))
    return found


def remove(leftover: Leftover) -> bool:
    """Remove it, unless a process is at work on it: then false."""
    path = leftover.path
    store = path.with_suffix("") if path.suffix in _BESIDES else path
    with _free(store) as free:
        if not free:
            return False
        if path.is_dir():
            # A reader must never meet half a store: the manifest goes first.
            (path / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(path)
        elif path.suffix != ".lock":  # held just now: removed below
            path.unlink(missing_ok=True)
        if not store.exists() and not partial_path(store).exists():
            health_path(store).unlink(missing_ok=True)
            lock_path(store).unlink(missing_ok=True)
    return True


@contextmanager
def _free(store: Path) -> Iterator[bool]:
    """True while nobody else builds or mends the store."""
    if store.parent != stores_folder():
        yield True
        return
    lock = FileLock(lock_path(store))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _of_this_version(folder: Path) -> bool:
    manifest = read_manifest(folder)
    return manifest is not None and manifest.identity.get("code") == CODE_VERSION


def _folders() -> list[Path]:
    root = stores_folder()
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and path.suffix not in _BESIDES)


def _store_of(packing: Path) -> str | None:
    try:
        return str(json.loads((packing / "plan.json").read_text(encoding="utf-8"))["store"])
    except (OSError, ValueError, KeyError):
        return None


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
