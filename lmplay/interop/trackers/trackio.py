"""Trackio: a local dashboard (`trackio show`). Its project is that of TRACKIO_PROJECT, or lmplay."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TrackioTracker:
    """One Trackio run under the run's name; resumed when it exists."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self._trackio: Any = importlib.import_module("trackio")
        self._run: Any = self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "lmplay"),
            name=run.name,
            config=dict(config),
            resume="allow",
            embed=False,
        )

    def log(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        self._run.log({**values, "clock": time}, step=step)

    def text(self, name: str, text: str, *, step: int, time: float) -> None:
        self._run.log({name: text, "clock": time}, step=step)

    def rewind(self, step: int) -> None:
        self._run.log({"resumed_from": step}, step=step)

    def flush(self) -> None:
        """Trackio sends from a thread of its own, several times a second."""

    def finish(self, *, failed: bool) -> None:  # noqa: ARG002 - Trackio has no such mark
        self._run.finish()
