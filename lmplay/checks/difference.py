"""Where and how far two sets of logits differ."""

from __future__ import annotations

import math

import torch

LEAST = 1e-12


def spread_of(logits: torch.Tensor) -> float:
    """Standard deviation of the logits: the scale that differences are judged by, never zero, infinite or NaN."""
    deviation = float(logits.float().std())
    return deviation if math.isfinite(deviation) and deviation > LEAST else LEAST


def largest(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest absolute difference; infinite where either is not a number."""
    difference = (first.float() - second.float()).abs()
    return float(difference.nan_to_num(nan=float("inf")).max()) if difference.numel() else 0.0


def by_position(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The largest absolute difference at each position of logits `(B, T, V)`: `(T,)`."""
    difference = (first.float() - second.float()).abs().nan_to_num(nan=float("inf"))
    return difference.amax(dim=(0, 2))
