"""Names and shapes of GPT-2's weights, here and in transformers. Both directions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

OUTSIDE = {"wte.weight": "tok_embed.weight", "ln_f.weight": "ln.weight", "ln_f.bias": "ln.bias"}
LAYERS = {
    "ln_1": "ln1",
    "attn.c_attn": "attn.qkv",
    "attn.c_proj": "attn.proj",
    "ln_2": "ln2",
    "mlp.c_fc": "ff.up",
    "mlp.c_proj": "ff.down",
}
POSITIONS, HEAD = "wpe.weight", "lm_head.weight"
PREFIX = "transformer."


def pairs(num_blocks: int) -> dict[str, str]:
    """Their name, without the prefix, and ours, of all weights that only differ in name or by a transposition."""
    found = dict(OUTSIDE)
    for block in range(num_blocks):
        for theirs, ours in LAYERS.items():
            for kind in ("weight", "bias"):
                found[f"h.{block}.{theirs}.{kind}"] = f"blocks.{block}.{ours}.{kind}"
    return found


def turned(name: str, tensor: Tensor) -> Tensor:
    """transformers keeps GPT-2's projections as (in, out), we as (out, in)."""
    return tensor.t() if name.startswith("h.") and tensor.dim() == 2 else tensor


def to_theirs(state: Mapping[str, Tensor], num_blocks: int, *, tied: bool) -> dict[str, Tensor]:
    """Our state -> that of `GPT2LMHeadModel`, contiguous, without the output projection where it is tied."""
    found = {PREFIX + theirs: turned(theirs, state[ours]).contiguous() for theirs, ours in pairs(num_blocks).items()}
    found[PREFIX + POSITIONS] = state["pos_embed"][0].contiguous()  # (1, T, D) -> (T, D)
    if not tied:
        found[HEAD] = state["fc.weight"].contiguous()
    return found


def to_ours(state: Mapping[str, Tensor], num_blocks: int, *, tied: bool) -> dict[str, Tensor]:
    """The state of `GPT2LMHeadModel`, or of `GPT2Model` as the first releases had it, -> ours, in float32.

    Raises `KeyError` with the name of a weight that is missing.
    """
    bare = {name.removeprefix(PREFIX): tensor.to(torch.float32) for name, tensor in state.items()}
    found = {ours: turned(theirs, bare[theirs]).contiguous() for theirs, ours in pairs(num_blocks).items()}
    found["pos_embed"] = bare[POSITIONS].unsqueeze(0)  # (T, D) -> (1, T, D)
    found["fc.weight"] = bare["wte.weight"] if tied else bare[HEAD]
    return found
