"""Parts of a store: which documents are held out, and the rest as one stream of tokens. Called by `diet.py`.

Held out are the documents whose hash falls in the lowest `share` of the range, in the order of the source, as long as
they fit into `max_tokens`. So the choice depends on a document's text alone, copies of a held-out document are never
trained on, and reading more of a source does not change what was held out. Where the hash picks nothing, the document
with the lowest hash is held out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lmplay.data.shards.store import TokenStore
from lmplay.plans import Validation

_BLOCK_TOKENS = 1 << 22
"""Tokens whose mask is read at a time."""


@dataclass(frozen=True)
class Part:
    """Some documents of a store in their order, read as one stream; positions count the part's own tokens."""

    store: TokenStore
    runs: npt.NDArray[np.int64]
    """(runs, 2) first and last + 1 of the documents that stand together, ascending."""
    key: str
    """Says which documents of which store these are."""

    @cached_property
    def num_documents(self) -> int:
        return int((self.runs[:, 1] - self.runs[:, 0]).sum())

    @cached_property
    def num_tokens(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def num_learned(self) -> int:
        """Tokens that carry loss."""
        if not self.store.masked:
            return self.num_tokens
        everything = whole(self.store)
        if self.num_tokens <= everything.num_tokens // 2:
            return int(self.count_learned(np.zeros(1, dtype=np.int64), np.array([self.num_tokens]))[0])
        # The manifest knows the whole: only the mask of what is left out has to be read.
        first, last = self.runs[:, 0], self.runs[:, 1]
        gaps = zip([0, *last.tolist()], [*first.tolist(), self.store.num_documents], strict=True)
        borders = [(self.store.document_start(start), self.store.document_start(stop)) for start, stop in gaps]
        return self.store.manifest.learned - sum(
            int(np.count_nonzero(self.store.mask(start, stop))) for start, stop in borders if start < stop
        )

    def documents(self) -> npt.NDArray[np.int64]:
        """(documents,) their numbers in the store."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(first, last) for first, last in self.runs)])

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Token ids from `start` to `stop`."""
        pieces = [self.store.tokens(first, last) for first, last in self._spans(start, stop)]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, dtype=np.int64), *pieces])

    def mask(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """True where a token is learned."""
        pieces = [self.store.mask(first, last) for first, last in self._spans(start, stop)]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, dtype=np.bool_), *pieces])

    def document_borders(self, block: int) -> Iterator[npt.NDArray[np.int64]]:
        """Where documents start, and the end, in blocks of up to `block` documents: each (documents + 1,), ascending.

        A block ends where the next begins, so its last number is the next one's first.
        """
        for (first, last), start in zip(self.runs.tolist(), self._starts.tolist(), strict=False):
            origin = self.store.document_start(first)
            for begin in range(first, last, block):
                yield self.store.document_starts(begin, min(begin + block, last)) - origin + start

    def count_learned(self, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Learned tokens in each stretch `starts[i]` to `stops[i]`, a bounded piece of the mask at a time."""
        counts = np.zeros(starts.size, dtype=np.int64)
        end = int(stops.max(initial=0))
        for first in range(int(starts.min(initial=end)), end, _BLOCK_TOKENS):
            last = min(first + _BLOCK_TOKENS, end)
            before = np.concatenate([[0], np.cumsum(self.mask(first, last))])
            counts += before[np.clip(stops, first, last) - first] - before[np.clip(starts, first, last) - first]
        return counts

    def _spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The stretches of the store that make up `start` to `stop`."""
        assert 0 <= start <= stop <= self.num_tokens
        spans = []
        run = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._starts[run + 1]))
            shift = int(self._origins[run]) - int(self._starts[run])
            spans.append((start + shift, end + shift))
            start, run = end, run + 1
        return spans

    @cached_property
    def _origins(self) -> npt.NDArray[np.int64]:
        """(runs,) where each run starts in the store."""
        return np.array([self.store.document_start(first) for first in self.runs[:, 0].tolist()], dtype=np.int64)

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """(runs + 1,) where each run starts in the part, and the end."""
        ends = [self.store.document_start(last) for last in self.runs[:, 1].tolist()]
        return np.concatenate([[0], np.cumsum(np.array(ends, dtype=np.int64) - self._origins)])


def whole(store: TokenStore) -> Part:
    """All documents."""
    return Part(store, np.array([[0, store.num_documents]]), f"{store.key}:whole")


def split(store: TokenStore, validation: Validation) -> tuple[Part, Part]:
    """(training, held out) by the rule above. A store of one document is all training."""
    rule = f"{store.key}:{validation.share!r}:{validation.max_tokens}"
    held = _held_out(store, validation)
    contents = {hash_ for _, hash_ in held}
    highest = np.uint64(max(contents, default=0))
    # Copies of a held-out text are in neither part.
    left_out = sorted({number for number, hash_ in _with_low_hash(store, highest) if hash_ in contents})
    borders = [-1, *left_out, store.num_documents]
    training = [(before + 1, after) for before, after in itertools.pairwise(borders) if before + 1 < after]
    if not held or not training:
        return whole(store), Part(store, np.zeros((0, 2), dtype=np.int64), f"{rule}:none")
    alone = [(number, number + 1) for number, _ in held]
    return Part(store, np.array(training), f"{rule}:training"), Part(store, np.array(alone), f"{rule}:held out")


def _held_out(store: TokenStore, validation: Validation) -> list[tuple[int, int]]:
    """(number, hash) of the documents to hold out, in order."""
    if store.num_documents < 2:
        return []
    candidates = list(_with_low_hash(store, np.uint64(int(validation.share * 2**64))))
    if not candidates:
        lowest = min(hashes.min() for _, hashes in store.hashes())
        candidates = list(_with_low_hash(store, lowest))[:1]
    lengths = [store.document_start(number + 1) - store.document_start(number) for number, _ in candidates]
    held: list[tuple[int, int]] = []
    contents: set[int] = set()
    room = validation.max_tokens
    for candidate, length in zip(candidates, lengths, strict=True):
        if length <= room and candidate[1] not in contents:
            held.append(candidate)
            contents.add(candidate[1])
            room -= length
    held = held or [min(zip(lengths, candidates, strict=True))[1]]
    return held[:-1] if len(held) == store.num_documents else held  # something must be left to train on


def _with_low_hash(store: TokenStore, highest: np.uint64) -> Iterator[tuple[int, int]]:
    """(number, hash) of the documents whose hash is not above `highest`."""
    for first, hashes in store.hashes():
        for index in np.flatnonzero(hashes <= highest).tolist():
            yield first + index, int(hashes[index])
