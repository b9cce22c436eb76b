"""A local GPT-2 folder of transformers as a checkpoint that `generate`, `chat` and `run --initial-model` take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lmplay.base.model_files import save_model
from lmplay.base.runner_list import get_runner
from lmplay.interop.huggingface.names import to_ours
from lmplay.utils.errors import LMPlayError

WEIGHTS, INDEX, PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
GELUS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}
# Settings of transformers' GPT2Config that change what is computed, with the only value that is GPT-2's.
FIXED: dict[str, Any] = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "layer_norm_epsilon": 1e-5,
}


@dataclass(frozen=True, kw_only=True)
class Imported:
    folder: Path
    experiment: str
    parameters: int
    settings: dict[str, Any]
    """Those of the model that are not the experiment's own: what a run that starts from it has to be given."""


def import_gpt2(source: Path, folder: Path) -> Imported:
    """Write the model in `source` into `folder`: as gpt2ish where that is what it computes, else as gpt2.

    Raises `LMPlayError` for what is no GPT-2, and for files that are missing or damaged. No code in them runs.
    """
    config = read_config(source)
    tensors = read_weights(source)
    tied = bool(config.get("tie_word_embeddings", True)) or "lm_head.weight" not in tensors
    gelu = GELUS[config.get("activation_function", "gelu_new")]
    experiment = "gpt2ish" if gelu == "none" and not tied else "gpt2"
    settings: dict[str, Any] = {
        "max_len": config["n_positions"],
        "num_heads": config["n_head"],
        "num_blocks": config["n_layer"],
        "embed_dim": config["n_embd"],
        "attn_dropout": config.get("attn_pdrop", 0.1),
        "ff_dropout": config.get("resid_pdrop", 0.1),
        "embed_dropout": config.get("embd_pdrop", 0.1),
        **({"gelu": gelu, "tied": tied} if experiment == "gpt2" else {}),
    }
    runner = get_runner(experiment)
    model = runner.build_model(**settings)
    try:
        model.load_state_dict(to_ours(tensors, settings["num_blocks"], tied=tied))
    except KeyError as error:
        raise LMPlayError(f"the weights in {source} lack {error.args[0]}; is the download complete?") from error
    except RuntimeError as error:
        raise LMPlayError(
            f"the weights in {source} do not fit its config.json: {' '.join(str(error).split())}"
        ) from error
    save_model(model, folder, experiment=experiment)
    defaults = {name: parameter.default for name, parameter in runner.model_parameters().items()}
    return Imported(
        folder=folder,
        experiment=experiment,
        parameters=sum(p.numel() for p in model.parameters()),
        settings={name: value for name, value in settings.items() if value != defaults[name]},
    )


def read_config(source: Path) -> dict[str, Any]:
    path = source / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LMPlayError(f"{source} holds no config.json; give the folder of a model saved by transformers") from error
    except (OSError, ValueError) as error:
        raise LMPlayError(f"{path} cannot be read: {error}") from error
    config: dict[str, Any] = found if isinstance(found, dict) else {}
    kind = config.get("model_type")
    if kind != "gpt2":
        raise LMPlayError(f"{path} describes a model of the type {kind!r}; only gpt2 can be imported")
    for name in ("n_positions", "n_embd", "n_layer", "n_head"):
        if not isinstance(config.get(name), int):
            raise LMPlayError(f"{path} has no {name!r}; is it the configuration of a GPT-2?")
    wanted = {**FIXED, "n_inner": 4 * config["n_embd"], "vocab_size": 50257}
    for name, value in wanted.items():
        if config.get(name) not in (None, value):
            raise LMPlayError(f"{path} has {name} = {config[name]}, and lmplay's GPT-2 only {value}")
    if config.get("activation_function", "gelu_new") not in GELUS:
        raise LMPlayError(f"{path} has activation_function = {config['activation_function']!r}, no kind of GELU")
    return config


def read_weights(source: Path) -> dict[str, Tensor]:
    """All tensors: of one file of safetensors, of several with an index, or of a pickle that may hold tensors only."""
    try:
        if (source / WEIGHTS).is_file():
            return load_file(source / WEIGHTS)
        if (source / INDEX).is_file():
            files = sorted(set(json.loads((source / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
            return {name: tensor for file in files for name, tensor in load_file(source / file).items()}
        if (source / PICKLED).is_file():
            tensors: dict[str, Tensor] = torch.load(source / PICKLED, map_location="cpu", weights_only=True)
            return tensors
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise LMPlayError(f"the weights in {source} are damaged or incomplete: {error}") from error
    raise LMPlayError(f"{source} holds no {WEIGHTS} and no {PICKLED}")
