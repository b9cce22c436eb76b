"""From a dataset of a plan to its token store: the one that is there, mended where it is damaged, or a new one.

Called when a stage opens and by `lmplay data`. The key of a store covers everything that decides its bytes, so a stale
store can't be picked up: it has another name.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmplay.data.batch import Progress
from lmplay.data.shards.build import SHARD_TOKENS, Builder
from lmplay.data.shards.disk import disk_errors
from lmplay.data.shards.health import damaged_shards, remember_health
from lmplay.data.shards.store import FORMAT, TokenStore, lock_path, read_manifest, stores_folder
from lmplay.data.sources import Source, open_source
from lmplay.data.text.documents import Reader
from lmplay.plans import DatasetSpec
from lmplay.utils.files import to_json
from lmplay.utils.tokenizer import check_tokenizer

CODE_VERSION = 2
"""Raised whenever the same source would give other tokens: readers, templates, ends of documents."""


@dataclass(frozen=True)
class Place:
    """Where the store of a dataset is, or will be."""

    folder: Path
    key: str
    identity: dict[str, Any]
    source: Source
    reader: Reader
    tokenizer: str

    @property
    def builder(self) -> Builder:
        return Builder(
            source=self.source,
            reader=self.reader,
            tokenizer=self.tokenizer,
            identity=self.identity,
            key=self.key,
            folder=self.folder,
        )


def locate(
    spec: DatasetSpec,
    *,
    folder: Path,
    split: str | None = None,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> Place:
    """The place of a dataset's store. `split` and `max_tokens` replace those of the spec; paths start from `folder`.

    Takes a moment where source files are met for the first time: their sums are part of the key.
    """
    check_tokenizer(spec.tokenizer)
    reader = Reader(spec)
    source = open_source(spec, columns=reader.columns, split=split, folder=folder)
    identity = {
        "format": FORMAT,
        "code": CODE_VERSION,
        "source": source.identity(progress),
        "fields": spec.fields.model_dump(exclude_none=True),
        "template": reader.template,
        "max_tokens": max_tokens if max_tokens is not None else spec.max_tokens,
        "tokenizer": spec.tokenizer,
        "shard_tokens": SHARD_TOKENS,
    }
    key = hashlib.sha256(to_json(identity).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9._]+", "-", source.label).strip("-.")[:60] or "data"
    return Place(stores_folder() / f"{name}-{key[:16]}", key, identity, source, reader, spec.tokenizer)


def prepare(
    spec: DatasetSpec,
    *,
    folder: Path,
    split: str | None = None,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> TokenStore:
    """The store of a dataset, built now where it is not there and mended where it is damaged.

    Safe when several processes ask at once: one builds, the others wait. Arguments as of `locate`.
    """
    place = locate(spec, folder=folder, split=split, max_tokens=max_tokens, progress=progress)
    manifest = read_manifest(place.folder)
    if manifest is None or damaged_shards(place.folder, manifest):
        with disk_errors(), _locked(place.folder, progress):
            manifest = read_manifest(place.folder)  # another process may have been faster
            if manifest is None:
                manifest = place.builder.build(progress)
            elif damage := damaged_shards(place.folder, manifest):
                manifest = place.builder.mend(manifest, damage, progress)
            remember_health(place.folder, manifest)
    return TokenStore(place.folder, manifest)


@contextlib.contextmanager
def _locked(store: Path, progress: Progress | None) -> Iterator[None]:
    store.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path(store))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        while not lock.is_locked:
            if progress is not None:
                progress(f"waiting for another process that prepares {store.name}", 0, None)
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=1)
    try:
        yield
    finally:
        lock.release()
