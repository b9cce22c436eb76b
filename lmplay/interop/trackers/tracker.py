"""What a tracker has to be able to do. Steps are optimizer steps; `time` is seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """One open run of a tracking tool. Any method may raise anything: the bridge tries again later."""

    def log(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        """Figures of one row under names such as `train/loss`."""

    def text(self, name: str, text: str, *, step: int, time: float) -> None:
        """A generated sample."""

    def rewind(self, step: int) -> None:
        """What was logged after `step` became obsolete."""

    def flush(self) -> None:
        """What was logged until now is to be seen, and to outlive this process."""

    def finish(self, *, failed: bool) -> None:
        """Everything is logged; flush and close."""


def open_tracker(name: str, run: Path, folder: Path, config: Mapping[str, Any]) -> Tracker:
    """Connect to the tracker `name` for `run`, going on with what an earlier bridge began; `folder` is its own."""
    if name == "tensorboard":
        from lmplay.interop.trackers.tensorboard import TensorBoardTracker

        return TensorBoardTracker(folder)
    if name == "wandb":
        from lmplay.interop.trackers.wandb import WandbTracker

        return WandbTracker(run, folder, config)
    assert name == "trackio", name
    from lmplay.interop.trackers.trackio import TrackioTracker

    return TrackioTracker(run, config)
