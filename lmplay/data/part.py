"""Parts of a store: which documents are held out, and the rest as one stream of tokens. Called by `lmplay.data.stage`.

Held out are the documents whose hash falls in the lowest `share` of the range, in the order of the source, as long as
they fit into `max_tokens`. So the choice depends on a document's text alone, copies of a held-out document are never
trained on, and reading more of a source does not change what was held out. Where the hash picks nothing, the document
with the lowest hash is held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lmplay.data.store import TokenStore
from lmplay.plans import Validation


@dataclass(frozen=True)
class Part:
    """Some documents of a store in their order, read as one stream; positions count the part's own tokens."""

    store: TokenStore
    documents: npt.NDArray[np.int64]
    """(documents,) indices in the store, ascending."""

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(documents,) tokens of each document, its end-of-text token among them."""
        starts = self.store.document_starts
        return starts[self.documents + 1] - starts[self.documents]

    @cached_property
    def num_tokens(self) -> int:
        return int(self._run_starts[-1])

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Token ids from `start` to `stop`."""
        pieces = [self.store.tokens(first, last) for first, last in self._spans(start, stop)]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, dtype=np.int64), *pieces])

    def mask(self, start: int, stop: int) -> npt.NDArray[np.bool_] | None:
        """True where a token is learned; `None` where all are."""
        if not self.store.masked:
            return None
        pieces = [self.store.mask(first, last) for first, last in self._spans(start, stop)]
        return np.concatenate([np.zeros(0, dtype=np.bool_), *(piece for piece in pieces if piece is not None)])

    def _spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The stretches of the store that make up `start` to `stop`."""
        assert 0 <= start <= stop <= self.num_tokens
        spans = []
        run = int(np.searchsorted(self._run_starts, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._run_starts[run + 1]))
            shift = int(self._run_origins[run]) - int(self._run_starts[run])
            spans.append((start + shift, end + shift))
            start, run = end, run + 1
        return spans

    @cached_property
    def _first_of_run(self) -> npt.NDArray[np.int64]:
        """Indices into `documents` where a run of neighbours starts."""
        return np.concatenate([np.zeros(1, dtype=np.int64), np.flatnonzero(np.diff(self.documents) != 1) + 1])

    @cached_property
    def _run_starts(self) -> npt.NDArray[np.int64]:
        """Where each run of neighbours starts in the part, and the end."""
        if not self.documents.size:
            return np.zeros(1, dtype=np.int64)
        before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths)])
        borders: npt.NDArray[np.int64] = before[np.append(self._first_of_run, self.documents.size)]
        return borders

    @cached_property
    def _run_origins(self) -> npt.NDArray[np.int64]:
        """Where each run starts in the store."""
        return self.store.document_starts[self.documents[self._first_of_run]]


def whole(store: TokenStore) -> Part:
    """All documents."""
    return Part(store, np.arange(store.num_documents))


def split(store: TokenStore, validation: Validation) -> tuple[Part, Part]:
    """(training, held out) by the rule above. A store of one document is all training."""
    hashes = store.hashes
    if hashes.size < 2:
        return whole(store), Part(store, np.zeros(0, dtype=np.int64))
    candidates = np.flatnonzero(hashes < np.uint64(int(validation.share * 2**64)))
    if not candidates.size:
        candidates = np.array([np.argmin(hashes)])
    starts = store.document_starts
    lengths = starts[candidates + 1] - starts[candidates]
    held, room = [], validation.max_tokens
    for document, length in zip(candidates.tolist(), lengths.tolist(), strict=True):
        if length <= room:
            held.append(document)
            room -= length
    if not held:
        held = [int(candidates[np.argmin(lengths)])]
    chosen = np.array(held, dtype=np.int64)
    copies = candidates[np.isin(hashes[candidates], hashes[chosen])]
    training = np.ones(hashes.size, dtype=np.bool_)
    training[copies] = False
    if not training.any():
        return whole(store), Part(store, np.zeros(0, dtype=np.int64))
    return Part(store, np.flatnonzero(training)), Part(store, chosen)
