"""Which checkpoints a run keeps. Pure decisions: `keeper.py` carries them out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lmplay.train.config import TrainConfig
from lmplay.train.keep.checkpoint import About


def superfluous(saved: Sequence[About], config: TrainConfig, *, protected: Collection[int]) -> list[int]:
    """Steps of the checkpoints that need not be kept, oldest first.

    Kept are the newest `keep_checkpoints` (all when 0), the milestones of `keep_every`, ends of stages, and whatever is
    `protected` (the best, and the one just written).
    """
    by_age = sorted(saved, key=lambda about: about.step)
    newest = by_age[-config.keep_checkpoints :] if config.keep_checkpoints else by_age
    return [
        about.step
        for about in by_age
        if about not in newest and about.step not in protected and not _is_special(about, config)
    ]


def next_to_give_up(saved: Sequence[About], config: TrainConfig, *, protected: Collection[int]) -> int | None:
    """The checkpoint that goes next when the disk is short: the oldest plain one, else the oldest special one."""
    candidates = [about for about in saved if about.step not in protected]
    if not candidates:
        return None
    return min(candidates, key=lambda about: (_is_special(about, config), about.step)).step


def _is_special(about: About, config: TrainConfig) -> bool:
    return about.milestone or (about.stage_end and config.keep_stage_ends)
