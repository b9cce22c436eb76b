"""What the trainer gets: rows of token ids with their targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORED = -100
"""Target of a position that carries no loss; the default `ignore_index` of PyTorch's cross entropy."""

Progress = Callable[[str, int, int | None], None]
"""`progress(what, done, total)`, called now and then by whatever takes longer than a second."""


@dataclass(frozen=True)
class Batch:
    """Rows of equal length. `targets[b, t]` is what follows `tokens[b, t]`, or `IGNORED`.

    `documents[b, t]` numbers the documents inside row b where attention and positions start anew at each border; `None`
    where a row is read as one text.
    """

    tokens: npt.NDArray[np.int64]  # (B, T)
    targets: npt.NDArray[np.int64]  # (B, T)
    documents: npt.NDArray[np.int32] | None = None  # (B, T)

    @property
    def num_targets(self) -> int:
        """Positions that carry loss."""
        return int(np.count_nonzero(self.targets != IGNORED))
