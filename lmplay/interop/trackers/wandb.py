"""Weights & Biases. Project, entity and mode come from its own environment: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class WandbTracker:
    """One W&B run for a run directory, under a fixed id, so that a resumed run goes on in the same one."""

    def __init__(self, run: Path, folder: Path, config: Mapping[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._wandb = wandb
        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lmplay"),
            id=run.name,
            name=run.name,
            config=dict(config),
            dir=str(folder),
            resume="allow",
            save_code=False,
        )
        # The step is a figure like others, since W&B's own may only ever rise and a resumed run goes back.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        self._run.log({**values, "step": step, "clock": time})

    def text(self, name: str, text: str, *, step: int, time: float) -> None:
        self._run.log({name: self._wandb.Html(f"<pre>{_escape(text)}</pre>"), "step": step, "clock": time})

    def rewind(self, step: int) -> None:
        self._run.log({"resumed_from": step, "step": step})

    def flush(self) -> None:
        """W&B sends from a process of its own."""

    def finish(self, *, failed: bool) -> None:
        self._run.finish(exit_code=1 if failed else 0)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
