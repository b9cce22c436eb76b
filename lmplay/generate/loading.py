"""From what a person typed to a model that is ready to generate. Called by the command line and the server."""

from __future__ import annotations

from pathlib import Path

import torch

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import load_model
from lmplay.runs import resolve_checkpoint
from lmplay.utils.errors import WrongUsageError


def choose_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one. Raises `WrongUsageError` for what this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise WrongUsageError(f"{name!r} is no device; use auto, cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise WrongUsageError(f"this machine has no {name} that torch {torch.__version__} can use; use --device cpu")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise WrongUsageError(f"there is no {name}: this machine has {torch.cuda.device_count()} GPUs")
    return device


def load(run_or_checkpoint: str | Path, *, device: str = "auto") -> tuple[LMBase, Path]:
    """The model of a run's newest checkpoint or of a checkpoint's folder, in eval mode, and the folder it is from."""
    folder = resolve_checkpoint(run_or_checkpoint)
    return load_model(folder, device=choose_device(device)).eval(), folder
