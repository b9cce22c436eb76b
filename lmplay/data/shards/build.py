"""Builds and mends token stores: rows are read, encoded on all cores and written as shards.

The work goes on in `<store>.partial`: shards, and a journal that names the complete ones and the source's cursor after
them. A process that dies loses at most one shard; the next goes on from the journal and ends with the same bytes, since
a shard ends only where a batch of the source does. Called by `prepare.py`, which holds the store's lock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from lmplay.data.batch import Progress
from lmplay.data.shards.store import MANIFEST, FileKind, FileRecord, Manifest, ShardRecord, partial_path
from lmplay.data.sources import Source
from lmplay.data.text.documents import Reader
from lmplay.data.text.tokens import EncodedDocuments, Encoder, token_type
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import sync_folder, to_json, write_atomically
from lmplay.utils.tokenizer import get_tokenizer

SHARD_TOKENS = 1 << 23
"""A shard ends with the batch of rows that fills it: 16 MB of GPT-2 tokens, and at most a large row more."""

_JOURNAL = "journal.json"
_BATCHES_AHEAD = 3


@dataclass
class _Shard:
    """Documents of the shard that is being read, and the cursors around it."""

    start: Any
    end: Any = None
    documents: int = 0
    tokens: int = 0
    empty: int = 0
    encoded: list[EncodedDocuments] = field(default_factory=list)

    def add(self, documents: EncodedDocuments, limit: int | None) -> bool:
        """Takes documents up to the one that reaches `limit` tokens in the shard; false when that one was met."""
        if limit is not None and self.tokens + documents.tokens.size >= limit:
            total = np.cumsum(documents.lengths)
            count = int(np.searchsorted(total, limit - self.tokens)) + 1
            documents = _first(documents, count, int(total[count - 1]))
        self.encoded.append(documents)
        self.documents += len(documents.lengths)
        self.tokens += documents.tokens.size
        return limit is None or self.tokens < limit

    def arrays(self) -> dict[FileKind, npt.NDArray[Any]]:
        lengths = [length for documents in self.encoded for length in documents.lengths]
        arrays: dict[FileKind, npt.NDArray[Any]] = {
            "tokens": np.concatenate([documents.tokens for documents in self.encoded]),
            "documents": np.cumsum([0, *lengths], dtype=np.int64),
            "hashes": np.array([value for documents in self.encoded for value in documents.hashes], dtype=np.uint64),
        }
        masks = [documents.mask for documents in self.encoded if documents.mask is not None]
        if masks:
            arrays["mask"] = np.concatenate(masks)
        return arrays


class Builder:
    """Makes one store. Used under the store's lock."""

    def __init__(
        self, *, source: Source, reader: Reader, tokenizer: str, identity: dict[str, Any], key: str, folder: Path
    ) -> None:
        self._source = source
        self._reader = reader
        self._tokenizer = get_tokenizer(tokenizer)
        self._limit: int | None = identity["max_tokens"]
        self._folder = folder
        self._partial = partial_path(folder)
        token_bytes = token_type(self._tokenizer).itemsize
        self._nothing = Manifest(
            key=key,
            identity=identity,
            tokenizer=tokenizer,
            end_of_text=self._tokenizer.eot_token,
            token_bytes=token_bytes,
        )

    def build(self, progress: Progress | None = None) -> Manifest:
        """The whole store, going on with what an interrupted build has left."""
        if self._folder.exists():  # left by a version that this one does not read
            shutil.rmtree(self._folder)
        self._partial.mkdir(parents=True, exist_ok=True)
        done = self._resume()
        for shard in self._shards(done.shards[-1].end if done.shards else None, done.tokens, progress):
            done = _with_shard(done, _write(shard, self._partial, len(done.shards)), shard)
            write_atomically(self._partial / _JOURNAL, done.model_dump_json())
        if not done.tokens:
            raise LMPlayError(f"{self._source.label} has no text to learn")
        write_atomically(self._partial / MANIFEST, to_json(done.model_dump(), indent=1) + "\n")
        (self._partial / _JOURNAL).unlink(missing_ok=True)
        sync_folder(self._partial)
        self._partial.rename(self._folder)
        sync_folder(self._folder.parent)
        return done

    def mend(self, manifest: Manifest, damaged: list[int], progress: Progress | None = None) -> Manifest:
        """Makes the damaged shards of a store again. Where the source no longer gives their bytes, all of it."""
        self._partial.mkdir(parents=True, exist_ok=True)
        for number in damaged:
            record = manifest.shards[number]
            before = sum(shard.tokens for shard in manifest.shards[:number])
            shard = next(self._shards(record.start, before, progress), None)
            if shard is None or _write(shard, self._partial, number).files != record.files:
                shutil.rmtree(self._partial)
                return self.build(progress)
            for file in record.files.values():
                (self._partial / file.name).replace(self._folder / file.name)
        shutil.rmtree(self._partial)
        sync_folder(self._folder)
        return manifest

    def _resume(self) -> Manifest:
        """What an interrupted build has finished; files that it had not are removed."""
        try:
            found = Manifest.model_validate_json((self._partial / _JOURNAL).read_bytes())
        except (FileNotFoundError, ValidationError):
            found = self._nothing
        if found.key != self._nothing.key:
            found = self._nothing
        kept = {record.name for shard in found.shards for record in shard.files.values()} | {_JOURNAL}
        for path in self._partial.iterdir():
            if path.name not in kept:
                path.unlink()
        return found

    def _shards(self, cursor: Any, tokens_before: int, progress: Progress | None) -> Iterator[_Shard]:
        """The shards after a cursor of the source, before which there are `tokens_before` tokens."""
        shard = _Shard(cursor)
        more = self._limit is None or tokens_before < self._limit
        if not more:
            return
        with Encoder(self._tokenizer, masked=self._reader.masked) as encoder:
            for futures, shard.end, empty in self._encoded(encoder, cursor):
                shard.empty += empty
                for future in futures:
                    more = more and shard.add(
                        future.result(), None if self._limit is None else self._limit - tokens_before
                    )
                self._report(tokens_before + shard.tokens, progress)
                if not more:
                    break
                if shard.tokens >= SHARD_TOKENS:
                    tokens_before += shard.tokens
                    yield shard
                    shard = _Shard(shard.end)
        if shard.tokens:
            yield shard

    def _encoded(self, encoder: Encoder, cursor: Any) -> Iterator[tuple[list[Future[EncodedDocuments]], Any, int]]:
        """(documents in work, the cursor after them, how many rows were empty) of each batch; reading runs ahead."""
        ahead: deque[tuple[list[Future[EncodedDocuments]], Any, int]] = deque()
        for batch in self._source.batches(cursor):
            documents = [self._reader(row) for row in batch.rows]
            full = [document for document in documents if document is not None]
            ahead.append((encoder.submit(full), batch.cursor, len(documents) - len(full)))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.popleft()
        yield from ahead

    def _report(self, tokens: int, progress: Progress | None) -> None:
        if progress is None:
            return
        what = f"preparing {self._source.label}"
        unit, done, total = self._source.progress()
        if self._limit is not None:
            progress(f"{what} (tokens)", min(tokens, self._limit), self._limit)
        else:
            progress(f"{what} ({unit})", done, total)


def _with_shard(done: Manifest, record: ShardRecord, shard: _Shard) -> Manifest:
    learned = sum(
        documents.tokens.size if documents.mask is None else int(np.count_nonzero(documents.mask))
        for documents in shard.encoded
    )
    return done.model_copy(
        update={
            "tokens": done.tokens + shard.tokens,
            "documents": done.documents + shard.documents,
            "learned": done.learned + learned,
            "empty": done.empty + shard.empty,
            "shards": (*done.shards, record),
        }
    )


def _first(documents: EncodedDocuments, count: int, tokens: int) -> EncodedDocuments:
    return EncodedDocuments(
        tokens=documents.tokens[:tokens],
        lengths=documents.lengths[:count],
        hashes=documents.hashes[:count],
        mask=None if documents.mask is None else documents.mask[:tokens],
    )


def _write(shard: _Shard, folder: Path, number: int) -> ShardRecord:
    files = {kind: _save(folder / f"{number:05d}.{kind}.npy", array) for kind, array in shard.arrays().items()}
    return ShardRecord(tokens=shard.tokens, documents=shard.documents, files=files, start=shard.start, end=shard.end)


def _save(path: Path, array: npt.NDArray[Any]) -> FileRecord:
    try:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(array.data)  # as bytes: array.tofile hides the system's reason for failing
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return FileRecord(name=path.name, bytes=path.stat().st_size, sha256=digest.hexdigest())
