"""Smoothing of noisy curves, for charts and for figures read off them. Smooth first, then decimate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmplay.stats.parse import Floats


def smooth(values: Floats, span: float) -> Floats:
    """Exponential moving average of `values` (N,), the newest weighing 2 / (span + 1), unbiased from the start.

    Each point is the average over what came before it with weights (1 - 2/(span+1))^age, normalised by the weights of
    the finite values among them. Where `values` isn't finite the result is NaN, and the average passes over it.
    """
    if span <= 1 or len(values) == 0:
        return np.where(np.isfinite(values), values, np.nan)
    keep = 1 - 2 / (span + 1)
    finite = np.isfinite(values)
    if finite.all():
        sums = _decayed_sums(values, keep)
        sums /= _decayed_counts(len(values), keep)
        return sums
    sums = _decayed_sums(np.where(finite, values, 0.0), keep)
    weights = _decayed_sums(finite, keep)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(finite, sums / weights, np.nan)


def _decayed_sums(values: Floats | NDArray[np.bool_], keep: float) -> Floats:
    """s[t] = keep * s[t-1] + values[t], in blocks: a cumulative sum in each, its last value carried on."""
    length = _block_length(keep)
    count = -(-len(values) // length)
    # In place from here on: for a million values, memory that is new takes longer than the arithmetic.
    blocks = np.zeros((count, length))
    blocks.reshape(-1)[: len(values)] = values
    powers = keep ** np.arange(length)
    blocks /= powers
    np.cumsum(blocks, axis=1, out=blocks)
    blocks *= powers  # each as if nothing came before it
    carried = np.empty(count)
    before, decay = 0.0, keep**length
    for index, last in enumerate(blocks[:, -1].tolist()):
        carried[index] = before
        before = before * decay + last
    blocks += carried[:, None] * (powers * keep)
    return blocks.reshape(-1)[: len(values)]


def _decayed_counts(length: int, keep: float) -> Floats:
    """`_decayed_sums(np.ones(length), keep)`, which is (1 - keep^(t+1)) / (1 - keep)."""
    block = _block_length(keep)
    starts = keep ** (np.arange(-(-length // block)) * block + 1.0)
    counts = starts[:, None] * keep ** np.arange(block)
    np.subtract(1.0, counts, out=counts)
    counts /= 1.0 - keep
    return counts.reshape(-1)[:length]


def _block_length(keep: float) -> int:
    """As long as a block may be before keep^-length loses digits."""
    return int(np.clip(np.log(1e-6) / np.log(keep), 1, 4096))
