"""Checkpoints that are whole or not there: written beside, synced, renamed; checked by sums before they are believed.

`checkpoints/<step>/` holds `model.safetensors` and `model.json` (readable without lmplay), `trainer.pt` (everything
else that a bit-identical continuation needs, read with `weights_only=True`; of a model that is spread over processes,
its larger part is in the safetensors of `shards`) and `checkpoint.json` (where it stands,
why it is kept, and the sums of the other files).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmplay.base.model_files import DESCRIPTION, WEIGHTS
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import sync_folder, to_json

ABOUT = "checkpoint.json"
TRAINER_STATE = "trainer.pt"
SHARDS = "shards"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class About:
    """Where a checkpoint stands, and why it is kept beyond being one of the newest."""

    step: int
    samples: int
    tokens: int
    stage: str
    milestone: bool = False
    stage_end: bool = False


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that one checkpoint holds, ready to be written: nothing in it changes any more."""

    about: About
    description: Mapping[str, Any]  # model.json
    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]
    shards: Path | None = None
    """A folder that all processes have filled with what is spread over them; it becomes part of the checkpoint."""

    @property
    def nbytes(self) -> int:
        """Bytes on the disk, but for the small things."""
        return sum(tensor.nbytes for tensor in tensors_in([self.weights, self.state]))


def write_checkpoint(checkpoints: Path, content: Content) -> Path:
    """Write `checkpoints/<step>` in one step; a crash at any moment leaves the old ones and at most a hidden
    remainder. The run's folder must be there: one that was deleted is not made anew.
    """
    if not checkpoints.is_dir():
        checkpoints.mkdir()
        sync_folder(checkpoints.parent)
    step = content.about.step
    folder = checkpoints / str(step)
    temporary = checkpoints / f".{step}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        save_file(_apart(content.weights), temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / DESCRIPTION).write_text(to_json(content.description, indent=2) + "\n", encoding="utf-8")
        torch.save({"format": FORMAT, **content.state}, temporary / TRAINER_STATE)
        if content.shards is not None:
            # Links: where the disk is full, this is tried again.
            shutil.copytree(content.shards, temporary / SHARDS, copy_function=os.link)
        files = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
        sums = {str(path.relative_to(temporary)): _sum(path) for path in files}
        about = {"format": FORMAT, **asdict(content.about), "sums": sums}
        (temporary / ABOUT).write_text(to_json(about, indent=1) + "\n", encoding="utf-8")
        for path in (*files, temporary / ABOUT):
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        for inner in {path.parent for path in (*files, temporary / ABOUT)}:  # names are to last, too
            sync_folder(inner)
        _move_into_place(temporary, folder)
        if content.shards is not None:
            shutil.rmtree(content.shards, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that parts of a model share, once for each name: safetensors stores no sharing."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().contiguous()
        apart[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return apart


def _move_into_place(temporary: Path, folder: Path) -> None:
    if folder.exists():  # the same step saved again after going back to before it
        replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
        temporary.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        temporary.rename(folder)
    sync_folder(folder.parent)


def remove_checkpoint(checkpoints: Path, step: int) -> None:
    """Renamed first, so that no reader meets a half-deleted checkpoint under its own name."""
    hidden = checkpoints / f".{step}.pruned"
    shutil.rmtree(hidden, ignore_errors=True)
    (checkpoints / str(step)).rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def clear_remainders(checkpoints: Path) -> None:
    """Delete what writers before this one left half-written or half-deleted. Only the run's one writer may call it.

    A checkpoint that was being replaced, and whose replacement has not come to its name, gets its name back.
    """
    if not checkpoints.is_dir():
        return
    for entry in list(checkpoints.iterdir()):
        if not entry.name.startswith("."):
            continue
        if entry.name.endswith(".old") and not (folder := checkpoints / entry.name.split(".")[1]).exists():
            entry.rename(folder)
        elif entry.name.endswith((".tmp", ".old", ".pruned")) or entry.name.startswith((".latest.", ".best.")):
            shutil.rmtree(entry, ignore_errors=True)


@dataclass(frozen=True)
class FoundCheckpoint:
    """The newest checkpoint that is whole, and why newer ones were passed over."""

    folder: Path
    step: int
    damaged: tuple[str, ...]


def newest_whole_checkpoint(checkpoints: Path, *, before: int | None = None) -> FoundCheckpoint | None:
    """The newest checkpoint (of a step below `before`) whose files have their sums; `None` where there is none at all.

    Raises `LMPlayError` when there are checkpoints but every one is damaged: starting over in silence would lose them.
    """
    damaged: list[str] = []
    for step in sorted(checkpoint_steps(checkpoints), reverse=True):
        if before is not None and step >= before:
            continue
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


def set_damaged_aside(checkpoints: Path, *, after: int) -> list[Path]:
    """Rename damaged checkpoints beyond step `after` to `<step>.damaged`, so that nothing takes them for whole."""
    moved = []
    for step in checkpoint_steps(checkpoints):
        if step > after and damage(checkpoints / str(step)) is not None:
            aside = checkpoints / f"{step}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            (checkpoints / str(step)).rename(aside)
            moved.append(aside)
    return moved


def checkpoint_steps(checkpoints: Path) -> list[int]:
    if not checkpoints.is_dir():
        return []
    return sorted(int(entry.name) for entry in checkpoints.iterdir() if entry.name.isdecimal() and entry.is_dir())


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, or `None`: each is read whole and held against its sum."""
    try:
        sums = _read_about(folder)["sums"]
        expected = {str(name): str(digest) for name, digest in sums.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{ABOUT} cannot be read ({error.__class__.__name__})"
    for name, digest in expected.items():
        file = folder / name
        try:
            if _sum(file) != digest:
                return f"{name} differs from its sum"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    if missing := {WEIGHTS, DESCRIPTION, TRAINER_STATE} - expected.keys():
        return f"{ABOUT} does not list {', '.join(sorted(missing))}"
    return None


def read_about(folder: Path) -> About | None:
    """Where a checkpoint stands; `None` where that cannot be read."""
    try:
        content = _read_about(folder)
        return About(**{name: content[name] for name in About.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_about(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return content


def load_weights(folder: Path) -> dict[str, Tensor]:
    """`model.safetensors` of a checkpoint that was found whole."""
    return load_file(folder / WEIGHTS)


def load_trainer_state(folder: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Optimizer, counters and random states of a checkpoint. Tensors and plain values only: no code runs on load.

    `mapped`: tensors stay on the disk until they are used.
    """
    try:
        state: dict[str, Any] = torch.load(folder / TRAINER_STATE, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise LMPlayError(
            f"{folder / TRAINER_STATE} is refused: it holds something else than tensors and plain values, "
            "as no checkpoint of lmplay does"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise LMPlayError(f"{folder / TRAINER_STATE} cannot be read: {_first_line(error)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        written = state.get("format") if isinstance(state, dict) else "none"
        raise LMPlayError(f"{folder / TRAINER_STATE} has format {written}; this lmplay reads {FORMAT}")
    return state


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor within nested mappings and sequences."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def _sum(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [error.__class__.__name__])[0]
