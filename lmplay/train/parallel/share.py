"""Which rows of a batch one process computes, and in how many pieces: the same number of them in every process.

Where a process has fewer rows than others, or rows without a target, a row of the same batch stands in at the weight
zero: what sums gradients over processes expects each of them to take part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmplay.data import Batch
from lmplay.modules.losses import IGNORE


@dataclass(frozen=True)
class Share:
    """Rows `size`-ths of a batch, of which this is the one numbered `rank`."""

    rank: int
    size: int

    def pieces(self, batch: Batch, piece_size: int) -> list[tuple[slice, bool]]:
        """(rows, whether they only stand in) of each piece."""
        count = len(batch.tokens)
        start, stop = count * self.rank // self.size, count * (self.rank + 1) // self.size
        largest_share = -(-count // self.size)
        stand_in = _row_with_target(batch)
        pieces = []
        for first in range(start, start + largest_share, piece_size):
            rows = slice(min(first, stop), min(first + piece_size, stop))
            idle = not np.any(batch.targets[rows] != IGNORE)
            pieces.append((stand_in, True) if idle else (rows, False))
        return pieces


def _row_with_target(batch: Batch) -> slice:
    found = np.flatnonzero((batch.targets != IGNORE).any(axis=1))
    row = int(found[0]) if found.size else 0  # a batch without a single target is never computed
    return slice(row, row + 1)
