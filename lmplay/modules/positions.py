"""Positions of tokens where they are not simply 0, 1, 2, ..."""

from __future__ import annotations

import torch


def document_positions(documents: torch.Tensor) -> torch.Tensor:
    """`(B, T)` from the document index of each position `(B, T)`: counts from 0 at each border."""
    length = documents.size(1)
    place = torch.arange(length, device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return place - torch.where(begins, place, 0).cummax(dim=1).values
