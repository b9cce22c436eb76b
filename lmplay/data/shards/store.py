"""Token shards on disk and how they are read. Written by `lmplay.data.shards.prepare`, read by `lmplay.data.rows.part`.

A store is a folder named by its key, complete as soon as it has its name:

    manifest.json            what it was made from, totals, and the size and SHA-256 of each file
    00000.tokens.npy         token ids, uint16 (uint32 where the vocabulary needs it), documents back to back,
                             each ended by the end-of-text token
    00000.documents.npy      int64, where each document starts, and the end
    00000.hashes.npy         uint64, a hash of each document's text
    00000.mask.npy           uint8, 1 where a token is learned; only where some are not

Documents never cross a shard's border. Positions in this module count tokens through all shards.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmplay.utils.errors import LMPlayError
from lmplay.utils.paths import cache_root

FORMAT = 1
MANIFEST = "manifest.json"
FileKind = Literal["tokens", "documents", "hashes", "mask"]
_TYPES: dict[FileKind, str] = {"documents": "<i8", "hashes": "<u8", "mask": "|u1"}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    name: str
    bytes: int
    sha256: str


class ShardRecord(_Record):
    """One shard, and the cursors of the source between which it was read."""

    tokens: int
    documents: int
    files: dict[FileKind, FileRecord]
    start: Any = None
    end: Any = None


class Manifest(_Record):
    format: int = FORMAT
    key: str
    identity: dict[str, Any]
    tokenizer: str
    end_of_text: int
    token_bytes: int = 2
    tokens: int = 0
    documents: int = 0
    learned: int = Field(default=0, description="Tokens that carry loss.")
    empty: int = Field(default=0, description="Rows without text, left out.")
    shards: tuple[ShardRecord, ...] = ()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.bytes for shard in self.shards for file in shard.files.values())


def stores_folder() -> Path:
    """Where stores are; beside `NAME` may stand `NAME.lock`, `NAME.checked` and, while it is built, `NAME.partial`."""
    return cache_root() / "tokens"


def lock_path(store: Path) -> Path:
    return store.with_name(store.name + ".lock")


def partial_path(store: Path) -> Path:
    return store.with_name(store.name + ".partial")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a store, or `None` where there is no store that this version reads."""
    try:
        content = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest = Manifest.model_validate(json.loads(content))
    except (FileNotFoundError, NotADirectoryError, ValidationError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return manifest if manifest.format == FORMAT else None


class TokenStore:
    """A complete store. Its shards are mapped when it is opened: they stay readable if the folder is removed."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.key = manifest.key
        self.num_tokens = manifest.tokens
        self.num_documents = manifest.documents
        # The token and the document that each shard starts with, and the ends.
        self._starts = np.cumsum([0, *(shard.tokens for shard in manifest.shards)], dtype=np.int64)
        self._first_documents = np.cumsum([0, *(shard.documents for shard in manifest.shards)], dtype=np.int64)
        self._open: dict[tuple[int, FileKind], npt.NDArray[Any]] = {}
        for index, shard in enumerate(manifest.shards):
            for kind in shard.files:
                self._array(index, kind)

    @property
    def masked(self) -> bool:
        return self.manifest.learned < self.manifest.tokens

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Token ids from `start` to `stop`."""
        return self._read("tokens", start, stop).astype(np.int64)

    def mask(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """True where a token is learned."""
        if not self.masked:
            return np.ones(stop - start, dtype=np.bool_)
        return self._read("mask", start, stop).astype(np.bool_)

    def document_start(self, document: int) -> int:
        """Where a document starts; the end for the number after the last."""
        return int(self.document_starts(document, document)[0])

    def document_starts(self, first: int, last: int) -> npt.NDArray[np.int64]:
        """(last - first + 1,) where the documents from `first` to `last` start, the last one among them."""
        assert 0 <= first <= last <= self.num_documents
        pieces = []
        shard = max(0, int(np.searchsorted(self._first_documents, first, side="right")) - 1)
        shard = min(shard, len(self.manifest.shards) - 1)
        while True:
            before = int(self._first_documents[shard])
            starts = self._array(shard, "documents")
            inside = starts[first - before : last - before + 1]
            pieces.append(inside + self._starts[shard])
            first += inside.size
            if first > last:
                return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            shard += 1
            first -= 1  # the end of a shard is the start of the next
            pieces[-1] = pieces[-1][:-1]

    def hashes(self) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
        """(number of the first document, hash of each document's text), shard by shard."""
        for shard in range(len(self.manifest.shards)):
            yield int(self._first_documents[shard]), self._array(shard, "hashes")

    def _read(self, kind: FileKind, start: int, stop: int) -> npt.NDArray[Any]:
        assert 0 <= start <= stop <= self.num_tokens
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        for index in range(first, len(self.manifest.shards)):
            offset = int(self._starts[index])
            if offset >= stop:
                break
            pieces.append(self._array(index, kind)[max(start - offset, 0) : stop - offset])
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, dtype=np.uint8), *pieces])

    def _array(self, shard: int, kind: FileKind) -> npt.NDArray[Any]:
        found = self._open.get((shard, kind))
        if found is None:
            found = self._open[shard, kind] = self._map(shard, kind)
        return found

    def _map(self, shard: int, kind: FileKind) -> npt.NDArray[Any]:
        """What `np.load(..., mmap_mode="r")` gives, without reading a header that the manifest makes known.

        There may be thousands of files, and all are mapped before the first batch.
        """
        record = self.manifest.shards[shard]
        dtype = np.dtype(_TYPES[kind] if kind != "tokens" else f"<u{self.manifest.token_bytes}")
        count = {"tokens": record.tokens, "mask": record.tokens, "hashes": record.documents}.get(
            kind, record.documents + 1
        )
        path = self.folder / record.files[kind].name
        try:
            with path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return np.frombuffer(content, dtype=dtype, count=count, offset=len(content) - count * dtype.itemsize)
        except (OSError, ValueError) as error:
            raise LMPlayError(
                f"the token shard {path} can't be read ({error}); mend it with: lmplay data verify PLAN"
            ) from error
