"""Batches of a stage from any position on, as tensors on the device, two prepared ahead.

The data room says which tokens make which row; here is only the way from its numpy arrays to the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lmplay.data import Batch, prefetch
from lmplay.modules.losses import IGNORE
from lmplay.train.parallel.share import Share


@dataclass(frozen=True)
class Piece:
    """Rows that are computed at once. Also what a model's `train_loss` is given."""

    tokens: Tensor  # (b, T) int64
    targets: Tensor  # (b, T) int64, IGNORE where there is none
    documents: Tensor | None  # (b, T) int32, the document of each position within its row
    num_targets: int
    stands_in: bool = False  # computed at the weight zero, where a process has nothing of its own to do

    @property
    def borders(self) -> dict[str, Tensor]:
        """Keyword arguments of the model beside the tokens: only packed rows have any."""
        return {} if self.documents is None else {"documents": self.documents}


@dataclass(frozen=True)
class DeviceBatch:
    """The rows of one optimizer update, cut into pieces. One of several processes has the pieces of its share only."""

    pieces: tuple[Piece, ...]
    samples: int  # of the whole batch
    num_targets: int  # of the whole batch
    first_row: int


class Rows(Protocol):
    """What training needs of a stage or of the validation text: any rows, by position."""

    @property
    def num_rows(self) -> int: ...

    def rows(self, first: int, count: int) -> Batch: ...


def to_device(
    batch: Batch, *, first_row: int, piece_size: int, device: torch.device, share: Share | None = None
) -> DeviceBatch:
    """Cut `batch`, or this process's share of it, into pieces of at most `piece_size` rows and copy them; asynchronous
    on CUDA.
    """
    if share is None:
        cuts = [(slice(start, start + piece_size), False) for start in range(0, len(batch.tokens), piece_size)]
    else:
        cuts = share.pieces(batch, piece_size)
    pieces = []
    for rows, stands_in in cuts:
        targets = batch.targets[rows]
        documents = batch.documents
        pieces.append(
            Piece(
                tokens=_copy(batch.tokens[rows], device),
                targets=_copy(targets, device),
                documents=None if documents is None else _copy(documents[rows], device),
                # Counted on the host, where the data is: no synchronisation later.
                num_targets=0 if stands_in else int(np.count_nonzero(targets != IGNORE)),
                stands_in=stands_in,
            )
        )
    return DeviceBatch(
        pieces=tuple(pieces),
        samples=len(batch.tokens),
        num_targets=sum(piece.num_targets for piece in pieces) if share is None else batch.num_targets,
        first_row=first_row,
    )


def _copy(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def batches(
    source: Rows,
    *,
    first_row: int,
    end_row: int,
    batch_size: int,
    piece_size: int,
    device: torch.device,
    share: Share | None = None,
) -> Iterator[DeviceBatch]:
    """Rows `first_row` to `end_row`, `batch_size` at a time, the next ones read, and copied, while one is computed."""

    def fetch(first: int, count: int) -> DeviceBatch:
        batch = source.rows(first, count)
        return to_device(batch, first_row=first, piece_size=piece_size, device=device, share=share)

    spans = ((first, min(batch_size, end_row - first)) for first in range(first_row, end_row, batch_size))
    yield from prefetch(fetch, spans)
