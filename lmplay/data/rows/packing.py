"""How the documents of a part fill rows of a fixed length. Called by `lmplay.data.rows.stage`.

`stream`: contiguous windows over the part, document after document; nothing is padding but the end.
`document`: several documents a row, none in sight of another. `pad`: one document a row, the rest padding.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from lmplay.data.batch import IGNORED, Batch
from lmplay.data.rows.part import Part
from lmplay.data.rows.rowplan import Counts, row_plan
from lmplay.plans import PackingMode


class Packing(Protocol):
    """The rows of one pass over a part, by number."""

    num_rows: int

    @property
    def counts(self) -> Counts:
        """What all rows hold together."""

    def size(self, number: int) -> int:
        """Inputs of a row that are not padding; padding comes last."""

    def fill(self, number: int, phase: int, batch: Batch, row: int) -> None:
        """Write row number `number` of a pass into row `row` of a batch. `phase` shifts the borders of windows."""


def pack(part: Part, mode: PackingMode, sequence_length: int, *, ring: bool) -> Packing:
    """The rows of a part. `ring` joins the end of a stream to its beginning, as endless training does."""
    if mode == "stream":
        return StreamPacking(part, sequence_length, ring=ring)
    return PlannedPacking(part, mode, sequence_length)


class StreamPacking:
    """Contiguous windows. Each token is an input and the next one its target.

    With `ring`, the first document follows the last, and each pass starts at another phase, so that the windows of two
    epochs begin at other tokens. Without it, the last token has nothing to predict.
    """

    def __init__(self, part: Part, sequence_length: int, *, ring: bool) -> None:
        self._part = part
        self._length = sequence_length
        self._ring = ring
        self._num_inputs = part.num_tokens if ring else max(0, part.num_tokens - 1)
        self.num_rows = -(-self._num_inputs // sequence_length)

    @property
    def counts(self) -> Counts:
        learned = self._part.num_learned
        if not self._ring and self._part.num_tokens:
            learned -= int(self._part.count_learned(np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64))[0])
        return Counts(self._num_inputs, learned, 0, 0, 0)

    def size(self, number: int) -> int:
        return min(self._length, self._num_inputs - number * self._length)

    def fill(self, number: int, phase: int, batch: Batch, row: int) -> None:
        first, size = number * self._length, self.size(number)
        spans = self._spans(first + phase if self._ring else first, size + 1)
        window = np.concatenate([self._part.tokens(start, stop) for start, stop in spans])
        batch.tokens[row, :size] = window[:-1]
        batch.tokens[row, size:] = self._part.store.manifest.end_of_text
        batch.targets[row, :size] = window[1:]
        batch.targets[row, size:] = IGNORED
        if self._part.store.masked:
            mask = np.concatenate([self._part.mask(start, stop) for start, stop in spans])
            batch.targets[row, :size][~mask[1:]] = IGNORED

    def _spans(self, start: int, size: int) -> list[tuple[int, int]]:
        """The stretches of the part that make up a window which may run over its end."""
        total = self._part.num_tokens
        start %= total
        spans = []
        while size:
            stop = min(start + size, total)
            spans.append((start, stop))
            size -= stop - start
            start = 0
        return spans


class PlannedPacking:
    """Rows by a plan of pieces. Targets stay inside their document; its end-of-text token is the last of them."""

    def __init__(self, part: Part, mode: Literal["document", "pad"], sequence_length: int) -> None:
        self._part = part
        self._plan = row_plan(part, mode, sequence_length)
        self.num_rows = self._plan.rows.size - 1

    @property
    def counts(self) -> Counts:
        return self._plan.counts

    def size(self, number: int) -> int:
        first, last = int(self._plan.rows[number]), int(self._plan.rows[number + 1])
        return int(self._plan.lengths[first:last].sum())

    def fill(self, number: int, phase: int, batch: Batch, row: int) -> None:
        del phase  # pieces start where documents do
        tokens: npt.NDArray[np.int64] = batch.tokens[row]
        targets: npt.NDArray[np.int64] = batch.targets[row]
        position = 0
        first, last = int(self._plan.rows[number]), int(self._plan.rows[number + 1])
        for index, piece in enumerate(range(first, last)):
            start, size = int(self._plan.starts[piece]), int(self._plan.lengths[piece])
            window = self._part.tokens(start, start + size + 1)
            place = slice(position, position + size)
            tokens[place] = window[:-1]
            targets[place] = window[1:]
            if self._part.store.masked:
                targets[place][~self._part.mask(start + 1, start + size + 1)] = IGNORED
            if batch.documents is not None:
                batch.documents[row, place] = index
            position += size
        tokens[position:] = self._part.store.manifest.end_of_text
        targets[position:] = IGNORED
        if batch.documents is not None:
            batch.documents[row, position:] = last - first
