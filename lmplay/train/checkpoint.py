"""Checkpoints that are whole or not there: written beside, synced, renamed; checked by sums before they are believed.

`checkpoints/<step>/` holds `model.safetensors` and `model.json` (readable without lmplay), `trainer.pt` (everything
else that a bit-identical continuation needs, read with `weights_only=True`) and `sums.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import save_model
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import sync_folder, to_json

SUMS = "sums.json"
TRAINER_STATE = "trainer.pt"
FORMAT = 1


def save_checkpoint(checkpoints: Path, step: int, model: LMBase, *, experiment: str, state: dict[str, Any]) -> Path:
    """Write `checkpoints/<step>` in one step; a crash at any moment leaves the old ones and at most a hidden
    remainder.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    folder = checkpoints / str(step)
    temporary = checkpoints / f".{step}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        save_model(model, temporary, experiment=experiment)
        torch.save({"format": FORMAT, **state}, temporary / TRAINER_STATE)
        sums = {file.name: _sum(file) for file in sorted(temporary.iterdir())}
        (temporary / SUMS).write_text(to_json(sums, indent=1), encoding="utf-8")
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        sync_folder(temporary)
        if folder.exists():  # the same step saved again after going back to it
            replaced = checkpoints / f".{step}.{os.getpid()}.old"
            folder.rename(replaced)
            temporary.rename(folder)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            temporary.rename(folder)
        sync_folder(checkpoints)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


@dataclass(frozen=True)
class FoundCheckpoint:
    """The newest checkpoint that is whole, and why newer ones were passed over."""

    folder: Path
    step: int
    damaged: tuple[str, ...]


def newest_whole_checkpoint(checkpoints: Path) -> FoundCheckpoint | None:
    """The newest checkpoint whose files have their sums; `None` where there is none at all.

    Raises `LMPlayError` when there are checkpoints but every one is damaged: starting over in silence would lose them.
    """
    damaged: list[str] = []
    for step in sorted(checkpoint_steps(checkpoints), reverse=True):
        folder = checkpoints / str(step)
        if (problem := damage(folder)) is None:
            return FoundCheckpoint(folder, step, tuple(damaged))
        damaged.append(f"checkpoint {step}: {problem}")
    if damaged:
        raise LMPlayError(
            f"no checkpoint in {checkpoints} is whole ({'; '.join(damaged)}); "
            "restore one from a copy, or start a new run under another --name"
        )
    return None


def checkpoint_steps(checkpoints: Path) -> list[int]:
    if not checkpoints.is_dir():
        return []
    return sorted(int(entry.name) for entry in checkpoints.iterdir() if entry.name.isdecimal() and entry.is_dir())


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, or `None`: each is read whole and held against its sum."""
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{SUMS} cannot be read ({error.__class__.__name__})"
    for name, expected in sums.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if _sum(file) != expected:
            return f"{name} differs from its sum"
    return None


def load_trainer_state(folder: Path) -> dict[str, Any]:
    """Optimizer, counters and random states of a checkpoint. Tensors and plain values only: no code runs on load."""
    try:
        state: dict[str, Any] = torch.load(folder / TRAINER_STATE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise LMPlayError(
            f"{folder / TRAINER_STATE} cannot be read as a trainer state: {_first_line(error)}"
        ) from error
    if state.get("format") != FORMAT:
        raise LMPlayError(f"{folder / TRAINER_STATE} has format {state.get('format')}; this lmplay reads {FORMAT}")
    return state


def prune_checkpoints(checkpoints: Path, *, keep: int, protected: set[int]) -> list[int]:
    """Delete all but the newest `keep` checkpoints and those in `protected`; returns the steps deleted."""
    steps = checkpoint_steps(checkpoints)
    doomed = [step for step in steps[:-keep] if step not in protected]
    for step in doomed:
        # Renamed first, so that no reader meets a half-deleted checkpoint under its own name.
        hidden = checkpoints / f".{step}.pruned"
        (checkpoints / str(step)).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    return doomed


def _sum(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [error.__class__.__name__])[0]
