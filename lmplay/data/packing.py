"""How a part's documents fill rows of a fixed length. Called by `lmplay.data.stage`.

`stream`: contiguous windows over the part, document after document; each token is an input and a target once.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from lmplay.data.batch import IGNORED
from lmplay.data.part import Part


class Row(Protocol):
    """(T,) arrays of one row."""

    tokens: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


class Packing(Protocol):
    """Rows of one pass over a part, by number."""

    num_rows: int
    num_tokens: int
    """Inputs that are not padding, in all rows."""
    num_targets: int
    """Targets that carry loss, in all rows."""

    def fill(self, row: int, phase: int, tokens: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> None:
        """Write row number `row` of a pass into `tokens` and `targets`, both (T,)."""


class StreamPacking:
    """Contiguous windows over the part read as a ring: after the last document comes the first.

    Each pass starts at another `phase`, so that windows begin at other tokens in each epoch.
    """

    def __init__(self, part: Part, sequence_length: int, *, ring: bool) -> None:
        self._part = part
        self._length = sequence_length
        self._ring = ring
        # Without the ring the last token has nothing to predict.
        self.num_tokens = part.num_tokens if ring else part.num_tokens - 1
        self.num_targets = self.num_tokens
        self.num_rows = -(-self.num_tokens // sequence_length)

    def fill(self, row: int, phase: int, tokens: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> None:
        first = row * self._length
        size = min(self._length, self.num_tokens - first)
        window = self._window(first + phase if self._ring else first, size + 1)
        mask = self._mask(first + phase if self._ring else first, size + 1)
        tokens[:size] = window[:-1]
        targets[:size] = window[1:] if mask is None else np.where(mask[1:], window[1:], IGNORED)
        tokens[size:] = self._part.store.manifest.end_of_text
        targets[size:] = IGNORED

    def _window(self, start: int, size: int) -> npt.NDArray[np.int64]:
        return np.concatenate([self._part.tokens(first, last) for first, last in self._spans(start, size)])

    def _mask(self, start: int, size: int) -> npt.NDArray[np.bool_] | None:
        pieces = [self._part.mask(first, last) for first, last in self._spans(start, size)]
        return None if pieces[0] is None else np.concatenate([piece for piece in pieces if piece is not None])

    def _spans(self, start: int, size: int) -> list[tuple[int, int]]:
        total = self._part.num_tokens
        start %= total
        spans = []
        while size:
            stop = min(start + size, total)
            spans.append((start, stop))
            size -= stop - start
            start = 0
        return spans
