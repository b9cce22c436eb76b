"""Smoothing of noisy curves, for charts and for figures read off them. Smooth first, then decimate."""

from __future__ import annotations

import numpy as np

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
    sums = _decayed_sums(np.where(finite, values, 0.0), keep)
    weights = _decayed_sums(finite.astype(np.float64), keep)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(finite, sums / weights, np.nan)


def _decayed_sums(values: Floats, keep: float) -> Floats:
    """s[t] = keep * s[t-1] + values[t], in blocks: a cumulative sum in each, its last value carried on."""
    # As long as a block may be before keep^-length loses digits.
    length = int(np.clip(np.log(1e-6) / np.log(keep), 1, 4096))
    count = -(-len(values) // length)
    blocks = np.zeros((count, length))
    blocks.reshape(-1)[: len(values)] = values
    powers = keep ** np.arange(length)
    local = np.cumsum(blocks / powers, axis=1) * powers  # (blocks, length), each as if nothing came before it
    carried = np.empty(count)
    before, decay = 0.0, keep**length
    for index, last in enumerate(local[:, -1]):
        carried[index] = before
        before = before * decay + last
    found: Floats = (local + carried[:, None] * (powers * keep)).reshape(-1)[: len(values)]
    return found
