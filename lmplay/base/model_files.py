"""A model on disk: `model.safetensors` and `model.json` in one folder. Loading runs no code from the files.

Written by checkpoints and exports, read by everything that uses a trained model.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lmplay.base.base_model import LMBase
from lmplay.base.runner_list import discover, get_runner
from lmplay.base.without_init import WithoutInit
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json, write_atomically

FORMAT = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


def describe_model(model: LMBase, *, experiment: str) -> dict[str, Any]:
    """What `model.json` says: all that rebuilds the model around its weights."""
    description = {
        "format": FORMAT,
        "experiment": experiment,
        "model_class": f"{type(model).__module__}.{type(model).__qualname__}",
        "init_kwargs": model.init_kwargs,
    }
    for name, value in model.init_kwargs.items():
        try:
            json.dumps(value)
        except TypeError as error:
            kind = type(value).__name__
            raise LMPlayError(
                f"the setting {name!r} of {type(model).__name__} is a {kind}, which {DESCRIPTION} cannot hold; "
                "settings of a model are numbers, text, true/false, and lists or tables of them"
            ) from error
    return description


def save_model(model: LMBase, folder: Path, *, experiment: str) -> None:
    """Write the weights and what rebuilds the model around them into `folder`, which is made if need be.

    Tensors that several parts of a model share are written once for each name.
    """
    description = describe_model(model, experiment=experiment)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_atomically(folder / DESCRIPTION, to_json(description, indent=2) + "\n")


def load_model(folder: Path, *, device: torch.device | str = "cpu") -> LMBase:
    """The model that was saved in `folder`, on `device`, in eval mode.

    Raises `LMPlayError` when files are missing or damaged, when a newer lmplay wrote them, or when the model's code is
    gone or no longer fits the weights.
    """
    description = read_description(folder)
    try:
        tensors = load_file(folder / WEIGHTS, device=str(device))
    except FileNotFoundError as error:
        raise LMPlayError(f"{folder} holds no {WEIGHTS}; is it a checkpoint?") from error
    except (SafetensorError, OSError) as error:
        raise LMPlayError(f"{folder / WEIGHTS} is damaged ({error}); use another checkpoint") from error
    model_class = _model_class(description, folder)
    try:
        with WithoutInit():
            model = model_class(**description["init_kwargs"])
    except (TypeError, ValueError) as error:
        raise LMPlayError(
            f"{model_class.__name__} no longer takes the settings in {folder / DESCRIPTION}: {error}"
        ) from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= 300 else f"{reason[:300]}..."
        raise LMPlayError(
            f"the weights in {folder} do not fit {model_class.__name__} as it is written now: {reason}"
        ) from error
    return model.to(device).eval()


def read_description(folder: Path) -> dict[str, Any]:
    """What `model.json` says. Raises `LMPlayError` when it is missing, damaged, or of a newer format."""
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LMPlayError(f"{folder} holds no {DESCRIPTION}; is it a checkpoint?") from error
    except (OSError, ValueError) as error:
        raise LMPlayError(f"{path} cannot be read ({error}); use another checkpoint") from error
    known = {"format": int, "experiment": str, "model_class": str, "init_kwargs": dict}
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise LMPlayError(f"{path} does not describe a model; use another checkpoint")
    if description["format"] > FORMAT:
        raise LMPlayError(f"{path} has format {description['format']}, newer than this lmplay knows; update lmplay")
    for key, kind in known.items():
        if not isinstance(description.get(key), kind):
            raise LMPlayError(f"{path} has no {key!r}; use another checkpoint")
    return description


def _model_class(description: dict[str, Any], folder: Path) -> type[LMBase]:
    """The class that was saved; where it has moved, the one that the experiment uses now."""
    discover()  # also makes the folders of LMPLAY_EXPERIMENTS importable
    module, _, name = description["model_class"].rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as import_error:  # noqa: BLE001 (it runs a model's file, which may have been edited since)
        try:
            found = get_runner(description["experiment"]).model_class
        except WrongUsageError as error:
            raise LMPlayError(
                f"{folder} was saved by {description['model_class']} of the experiment {description['experiment']!r}, "
                f"which is not here ({import_error}); install it, or name its folder in LMPLAY_EXPERIMENTS"
            ) from error
    if not (isinstance(found, type) and issubclass(found, LMBase)):
        raise LMPlayError(f"{folder / DESCRIPTION} names {description['model_class']}, which is not a model")
    return found
