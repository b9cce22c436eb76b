"""A checkpoint as a folder that transformers loads: config.json, model.safetensors and the tokenizer's files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from lmplay.base.base_model import LMBase
from lmplay.base.runner_list import get_runner
from lmplay.interop.huggingface.names import to_theirs
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import write_atomically
from lmplay.utils.tokenizer import gpt2_vocabulary

TOLERANCE = 1e-4
"""Of the spread of the logits, on the tokens that decide whether a model computes what GPT-2 does."""
ROWS, LENGTH = 2, 64


@dataclass(frozen=True, kw_only=True)
class Exported:
    folder: Path
    difference: float
    """The largest difference of a logit between the model and GPT-2 with the exported weights."""
    left_out: tuple[str, ...]
    """Weights that GPT-2 has no place for, and that the logits do not depend on: heads that only train."""


def export_gpt2(model: LMBase, folder: Path) -> Exported:
    """Write `model` into `folder`, once it is shown to compute what GPT-2 computes with the same weights.

    Raises `LMPlayError` for a model that computes something else: transformers would give other logits.
    """
    state = {name: tensor.detach().cpu().float() for name, tensor in model.state_dict().items()}
    settings = gpt2_settings(model, state)
    peer = get_runner("gpt2").build_model(**settings).eval()
    expected = peer.state_dict()
    missing = [name for name, tensor in expected.items() if name not in state or state[name].shape != tensor.shape]
    if missing:
        raise LMPlayError(f"{type(model).__name__} is no GPT-2: it has no {missing[0]} of the right shape")
    peer.load_state_dict({name: state[name] for name in expected})
    difference, spread = largest_difference(model, peer)
    if not difference <= TOLERANCE * spread:
        raise LMPlayError(
            f"{type(model).__name__} computes something else than GPT-2 with these weights: logits differ by "
            f"{difference:.2g} where their spread is {spread:.2g}; only what GPT-2 computes can be exported as GPT-2"
        )
    write(folder, config_of(model, settings), to_theirs(state, settings["num_blocks"], tied=settings["tied"]))
    return Exported(folder=folder, difference=difference, left_out=tuple(sorted(state.keys() - expected.keys())))


def gpt2_settings(model: LMBase, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What the experiment `gpt2` is to be built with, to be `model`. Raises `LMPlayError` where it has other parts."""
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    heads = model.init_kwargs.get("num_heads")
    if not blocks or not isinstance(heads, int) or not {"tok_embed.weight", "pos_embed", "fc.weight"} <= state.keys():
        raise LMPlayError(
            f"{type(model).__name__} is no GPT-2: that has tok_embed, pos_embed, blocks, ln, fc, and num_heads as a "
            "setting, as gpt2ish has"
        )
    table, dropout = state["tok_embed.weight"], ("attn_dropout", "ff_dropout", "embed_dropout")
    return {
        "max_len": state["pos_embed"].size(-2),
        "num_heads": heads,
        "num_blocks": len(blocks),
        "embed_dim": table.size(1),
        "gelu": model.init_kwargs.get("gelu", "none"),
        "tied": torch.equal(table, state["fc.weight"]),
        **{name: model.init_kwargs[name] for name in dropout if name in model.init_kwargs},
    }


def largest_difference(model: LMBase, peer: LMBase) -> tuple[float, float]:
    """(largest difference of a logit, spread of the logits) of both on the same random tokens, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(peer.vocab_size, (ROWS, min(LENGTH, peer.max_len)), generator=generator)
    with torch.no_grad():
        ours = model.float().cpu().eval()(tokens)[..., : peer.vocab_size]
        theirs = peer(tokens)
    difference = (ours - theirs).abs().nan_to_num(nan=float("inf"))
    return float(difference.max()), float(theirs.std())


def config_of(model: LMBase, settings: dict[str, Any]) -> dict[str, Any]:
    """transformers' `GPT2Config`. Its dropouts only matter to those who train there: one each for three places."""
    end = model.tokenizer.eot_token
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": model.vocab_size,
        "n_positions": settings["max_len"],
        "n_embd": settings["embed_dim"],
        "n_layer": settings["num_blocks"],
        "n_head": settings["num_heads"],
        "activation_function": "gelu_new" if settings["gelu"] == "tanh" else "gelu",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": settings["tied"],
        "attn_pdrop": settings.get("attn_dropout", 0.0),
        "resid_pdrop": settings.get("ff_dropout", 0.0),
        "embd_pdrop": settings.get("embed_dropout", 0.0),
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float32",
    }


def write(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    end = "<|endoftext|>"
    merges, vocabulary = gpt2_vocabulary()
    tokenizer = {
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": config["n_positions"],
        "bos_token": end,
        "eos_token": end,
        "unk_token": end,
        "add_prefix_space": False,
    }
    write_atomically(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_atomically(folder / "vocab.json", vocabulary)
    write_atomically(folder / "merges.txt", merges)
    ends = {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]}
    # The configuration comes last: a folder without it is none that transformers takes.
    for name, content in (("tokenizer_config", tokenizer), ("generation_config", ends), ("config", config)):
        write_atomically(folder / f"{name}.json", json.dumps(content, indent=2) + "\n")
