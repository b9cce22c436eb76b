"""From what a person typed to a model that is ready to generate. Called by the command line and the server."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import load_model, read_description
from lmplay.generate.weights import prepare_for_inference, weight_bytes
from lmplay.runs import resolve_checkpoint
from lmplay.utils.errors import WrongUsageError


@dataclass(frozen=True)
class Loaded:
    model: LMBase
    folder: Path
    weights: str
    """What the weights are now: float32, bfloat16 or int8."""
    seconds: float

    def facts(self) -> dict[str, Any]:
        """What a front end shows of the model."""
        return {
            "checkpoint": str(self.folder),
            "experiment": read_description(self.folder)["experiment"],
            "model": self.model.name,
            "step": int(self.folder.name) if self.folder.name.isdecimal() else None,
            "device": str(self.model.device),
            "weights": self.weights,
            "weight_bytes": weight_bytes(self.model),
            "max_len": self.model.max_len,
            "tokenizer": self.model.tokenizer.name,
            "end_of_text": self.model.tokenizer.eot_token,
            "load_seconds": self.seconds,
        }


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


def load(run_or_checkpoint: str | Path, *, device: str = "auto", weights: str = "float32") -> Loaded:
    """The model of a run's newest checkpoint or of a checkpoint's folder, in eval mode, prepared for inference."""
    started = time.perf_counter()
    folder = resolve_checkpoint(run_or_checkpoint)
    model = load_model(folder, device=choose_device(device)).eval()
    kind = prepare_for_inference(model, weights)
    return Loaded(model=model, folder=folder, weights=kind, seconds=time.perf_counter() - started)
