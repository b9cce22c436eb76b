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


@dataclass(frozen=True)
class Piece:
    """Rows that are computed at once. Also what a model's `train_loss` is given."""

    tokens: Tensor  # (b, T) int64
    targets: Tensor  # (b, T) int64, IGNORE where there is none
    documents: Tensor | None  # (b, T) int32, the document of each position within its row
    num_targets: int

    @property
    def borders(self) -> dict[str, Tensor]:
        """Keyword arguments of the model beside the tokens: only packed rows have any."""
        return {} if self.documents is None else {"documents": self.documents}


@dataclass(frozen=True)
class DeviceBatch:
    """The rows of one optimizer update, cut into pieces."""

    pieces: tuple[Piece, ...]
    samples: int
    num_targets: int
    first_row: int


class Rows(Protocol):
    """What training needs of a stage or of the validation text: any rows, by position."""

    @property
    def num_rows(self) -> int: ...

    def rows(self, first: int, count: int) -> Batch: ...


def to_device(batch: Batch, *, first_row: int, piece_size: int, device: torch.device) -> DeviceBatch:
    """Cut `batch` into pieces of at most `piece_size` rows and copy them; asynchronous on CUDA."""
    pieces = []
    for start in range(0, len(batch.tokens), piece_size):
        rows = slice(start, start + piece_size)
        targets = batch.targets[rows]
        documents = batch.documents
        pieces.append(
            Piece(
                tokens=_copy(batch.tokens[rows], device),
                targets=_copy(targets, device),
                documents=None if documents is None else _copy(documents[rows], device),
                # Counted on the host, where the data is: no synchronisation later.
                num_targets=int(np.count_nonzero(targets != IGNORE)),
            )
        )
    return DeviceBatch(
        pieces=tuple(pieces),
        samples=len(batch.tokens),
        num_targets=sum(piece.num_targets for piece in pieces),
        first_row=first_row,
    )


def _copy(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def batches(
    source: Rows, *, first_row: int, end_row: int, batch_size: int, piece_size: int, device: torch.device
) -> Iterator[DeviceBatch]:
    """Rows `first_row` to `end_row`, `batch_size` at a time, the next ones read, and copied, while one is computed."""

    def fetch(first: int, count: int) -> DeviceBatch:
        return to_device(source.rows(first, count), first_row=first, piece_size=piece_size, device=device)

    spans = ((first, min(batch_size, end_row - first)) for first in range(first_row, end_row, batch_size))
    yield from prefetch(fetch, spans)
