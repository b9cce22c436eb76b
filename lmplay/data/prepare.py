"""Builds token stores: a dataset of a plan becomes shards, once. Called when a stage opens and by `lmplay data`.

The work goes on in `<store>.partial`: shards, and a journal that names the complete ones and the source's cursor after
them. A process that dies loses at most one shard; the next goes on from the journal and ends with the same bytes, since
shards end only where batches of the source do. A lock lets one process at a time build a store.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from lmplay.data.batch import Progress
from lmplay.data.documents import Reader
from lmplay.data.sources import Source, open_source
from lmplay.data.store import (
    FORMAT,
    MANIFEST,
    FileKind,
    FileRecord,
    Manifest,
    ShardRecord,
    TokenStore,
    read_manifest,
    stores_folder,
)
from lmplay.data.tokens import EncodedDocument, Encoder
from lmplay.plans import DatasetSpec
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import sync_folder, to_json, write_atomically
from lmplay.utils.tokenizer import get_tokenizer

CODE_VERSION = 1
"""Raised whenever the same source would give other tokens: sources, templates, ends of documents."""

SHARD_TOKENS = 1 << 23
_JOURNAL = "journal.json"


def prepare(
    spec: DatasetSpec,
    *,
    folder: Path,
    split: str | None = None,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> TokenStore:
    """The store of a dataset, built now if it is not there. Safe when several processes ask at once.

    `split` and `max_tokens` replace those of the spec; relative paths start from `folder`.
    """
    source = open_source(spec, split=split, folder=folder)
    identity = _identity(spec, source, max_tokens if max_tokens is not None else spec.max_tokens)
    key = hashlib.sha256(to_json(identity).encode()).hexdigest()
    place = stores_folder() / f"{_folder_name(source.label)}-{key[:16]}"
    manifest = read_manifest(place)
    if manifest is None:
        with _disk_errors(place), _locked(place, progress):
            manifest = read_manifest(place)
            if manifest is None:
                manifest = _Builder(spec, source, identity, key, place, progress).build()
    return TokenStore(place, manifest)


def _identity(spec: DatasetSpec, source: Source, max_tokens: int | None) -> dict[str, Any]:
    """All that decides the bytes of a store. Its hash is the store's key."""
    return {
        "format": FORMAT,
        "code": CODE_VERSION,
        "source": source.identity(),
        "fields": spec.fields.model_dump(exclude_none=True),
        "template": spec.template,
        "max_tokens": max_tokens,
        "tokenizer": spec.tokenizer,
        "shard_tokens": SHARD_TOKENS,
    }


class _Builder:
    """Reads, encodes and writes one store. Lives while the store's lock is held."""

    def __init__(
        self,
        spec: DatasetSpec,
        source: Source,
        identity: dict[str, Any],
        key: str,
        place: Path,
        progress: Progress | None,
    ) -> None:
        self._source = source
        self._reader = Reader(spec.fields)
        self._tokenizer = get_tokenizer(spec.tokenizer)
        self._limit = identity["max_tokens"]
        self._place = place
        self._partial = place.with_name(place.name + ".partial")
        self._progress = progress
        self._dtype = np.uint16 if self._tokenizer.n_vocab <= 1 << 16 else np.uint32
        self._empty_manifest = Manifest(
            key=key, identity=identity, tokenizer=spec.tokenizer, end_of_text=self._tokenizer.eot_token
        )

    def build(self) -> Manifest:
        if self._place.exists():  # left by a version that this one does not read
            shutil.rmtree(self._place)
        self._partial.mkdir(parents=True, exist_ok=True)
        done = self._resume()
        for manifest in self._shards(done):
            done = manifest
            write_atomically(self._partial / _JOURNAL, done.model_dump_json())
        if not done.tokens:
            raise LMPlayError(f"the dataset {self._source.label!r} has no text")
        write_atomically(self._partial / MANIFEST, to_json(done.model_dump(), indent=1) + "\n")
        (self._partial / _JOURNAL).unlink()
        sync_folder(self._partial)
        self._partial.rename(self._place)
        sync_folder(self._place.parent)
        return done

    def _resume(self) -> Manifest:
        """What an interrupted build has finished; files that it had not are removed."""
        try:
            found = Manifest.model_validate(json.loads((self._partial / _JOURNAL).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            found = self._empty_manifest
        if found.key != self._empty_manifest.key or found.identity != self._empty_manifest.identity:
            found = self._empty_manifest
        kept = {file.name for shard in found.shards for file in shard.files.values()}
        for path in self._partial.iterdir():
            if path.name not in kept and path.name != _JOURNAL:
                path.unlink()
        return found

    def _shards(self, done: Manifest) -> Iterator[Manifest]:
        """The manifest after each further shard."""
        if self._limit is not None and done.tokens >= self._limit:
            return
        start = cursor = done.shards[-1].end if done.shards else None
        shard = _ShardBuffer(self._dtype)
        read = done.documents
        empty = 0
        with Encoder(self._tokenizer, masked=self._reader.masked) as encoder:
            for batch in self._source.batches(cursor):
                documents = [self._reader(row) for row in batch.rows]
                empty += sum(document is None for document in documents)
                enough = False
                for encoded in encoder.encode([document for document in documents if document is not None]):
                    shard.add(encoded)
                    read += 1
                    enough = self._limit is not None and done.tokens + shard.tokens >= self._limit
                    if enough:
                        break
                cursor = batch.cursor
                self._report(read, done.tokens + shard.tokens)
                if enough:
                    break
                if shard.tokens >= SHARD_TOKENS:
                    done = self._with_shard(done, shard, empty, start, cursor)
                    yield done
                    shard, start, empty = _ShardBuffer(self._dtype), cursor, 0
        if shard.tokens:
            yield self._with_shard(done, shard, empty, start, cursor)

    def _with_shard(self, done: Manifest, shard: _ShardBuffer, empty: int, start: Any, end: Any) -> Manifest:
        files = shard.write(self._partial, f"{len(done.shards):05d}", masked=self._reader.masked)
        record = ShardRecord(tokens=shard.tokens, documents=shard.documents, files=files, start=start, end=end)
        return done.model_copy(
            update={
                "tokens": done.tokens + shard.tokens,
                "documents": done.documents + shard.documents,
                "learned": done.learned + shard.learned,
                "empty": done.empty + empty,
                "shards": (*done.shards, record),
            }
        )

    def _report(self, documents: int, tokens: int) -> None:
        if self._progress is None:
            return
        what = f"preparing {self._source.label}"
        if self._limit is not None:
            self._progress(f"{what} (tokens)", min(tokens, self._limit), self._limit)
        else:
            self._progress(f"{what} (documents)", documents, self._source.total_rows())


class _ShardBuffer:
    """Documents of the shard that is being read."""

    def __init__(self, dtype: type[np.unsignedinteger[Any]]) -> None:
        self._dtype = dtype
        self._tokens: list[npt.NDArray[Any]] = []
        self._masks: list[npt.NDArray[np.uint8]] = []
        self._hashes: list[int] = []
        self._starts = [0]
        self.learned = 0

    @property
    def tokens(self) -> int:
        return self._starts[-1]

    @property
    def documents(self) -> int:
        return len(self._hashes)

    def add(self, document: EncodedDocument) -> None:
        self._tokens.append(document.tokens.astype(self._dtype))
        self._hashes.append(document.hash)
        self._starts.append(self._starts[-1] + document.tokens.size)
        if document.mask is None:
            self.learned += document.tokens.size
        else:
            self._masks.append(document.mask)
            self.learned += int(np.count_nonzero(document.mask))

    def write(self, folder: Path, stem: str, *, masked: bool) -> dict[FileKind, FileRecord]:
        arrays: dict[FileKind, npt.NDArray[Any]] = {
            "tokens": np.concatenate(self._tokens),
            "documents": np.array(self._starts, dtype=np.int64),
            "hashes": np.array(self._hashes, dtype=np.uint64),
        }
        if masked:
            arrays["mask"] = np.concatenate(self._masks)
        return {kind: _save(folder / f"{stem}.{kind}.npy", array) for kind, array in arrays.items()}


def _save(path: Path, array: npt.NDArray[Any]) -> FileRecord:
    try:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return FileRecord(name=path.name, bytes=path.stat().st_size, sha256=digest.hexdigest())


@contextlib.contextmanager
def _locked(place: Path, progress: Progress | None) -> Iterator[None]:
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(place.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if progress is not None:
            progress(f"waiting for another process that prepares {place.name}", 0, None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise LMPlayError(
                f"no room for the tokens in {place.parent}: {error.strerror}; "
                "free some space (lmplay data prune) or set LMPLAY_CACHE to another disk, then start again: "
                "it goes on where it stopped"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise LMPlayError(
                f"the token cache {place.parent} can't be written: {error.strerror}; set LMPLAY_CACHE to another folder"
            ) from error
        raise


def _folder_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.")[:60] or "data"
