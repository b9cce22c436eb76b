"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore.

Each returns a factor of the peak rate for optimizer update `step` (from 0) of a stage of `total` updates. `total` may
be `None` for a stage without an end known beforehand; schedules that decay towards an end then stay at the peak.
"""

from __future__ import annotations

import math

from lmplay.train.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, total: int | None) -> float:
    """The rate of update `step`: linear warm-up to `config.lr`, then the chosen course."""
    return config.lr * factor(config, step, total)


def factor(config: TrainConfig, step: int, total: int | None) -> float:
    """Share of the peak rate, within [0, 1]. The first update of a warm-up of n is 1/n, never 0: no update is
    wasted.
    """
    warmup = config.warmup_steps if total is None else min(config.warmup_steps, total)
    if step < warmup:
        return (step + 1) / warmup
    match config.schedule:
        case "constant":
            return 1.0
        case "inverse_sqrt":
            # Vaswani et al. 2017, section 5.3, scaled to be 1 at the end of the warm-up.
            return math.sqrt(max(warmup, 1) / (step + 1))
        case "linear":
            return _between(1.0, config.min_lr_ratio, _progress(step, warmup, total))
        case "cosine":
            # Loshchilov and Hutter 2017 (SGDR), equation 5, without restarts.
            shape = 0.5 * (1.0 + math.cos(math.pi * _progress(step, warmup, total)))
            return _between(config.min_lr_ratio, 1.0, shape)
        case "wsd":
            # Warm-up, stable, decay: Hu et al. 2024 (MiniCPM), section 4.2, with a linear decay.
            if total is None:
                return 1.0
            decay_from = max(warmup, total - round(config.decay_share * total))
            return _between(1.0, config.min_lr_ratio, _progress(step, decay_from, total))


def _progress(step: int, start: int, total: int | None) -> float:
    """0 at `start`, 1 at the last update `total - 1`; 0 where there is no end."""
    if total is None or step <= start:
        return 0.0
    return min(1.0, (step - start) / max(1, total - 1 - start))


def _between(start: float, end: float, share: float) -> float:
    return start + (end - start) * share
