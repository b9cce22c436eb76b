"""The table of layers, from torchinfo: what `describe` prints and hands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torchinfo

from lmplay.base.base_model import LMBase
from lmplay.checks.estimates.skeleton import meta_tokens


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One module. Sizes are those of a row of `max_len` tokens, and empty for one that did not run."""

    name: str
    type: str
    depth: int
    parameters: int
    trainable_parameters: int
    input_size: list[int]
    output_size: list[int]
    flops_per_token: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def layer_table(model: LMBase, flops: Mapping[str, int]) -> list[Layer]:
    """Every module of the model in the order of its definition, the model itself first.

    `flops` is `Flops.by_module`: torchinfo's own count leaves out attention and, in part, the length of the row.
    """
    tokens = meta_tokens(model, 1, model.max_len)
    try:
        summary = torchinfo.summary(model, input_data=tokens, device=tokens.device, depth=99, verbose=0, mode="eval")
    except (NotImplementedError, RuntimeError):  # cannot run without storage: the table lacks sizes, no more
        summary = torchinfo.summary(model, depth=99, verbose=0, mode="eval")
    names = {id(module): name for name, module in model.named_modules()}
    return [
        Layer(
            name=names.get(info.layer_id, info.var_name),
            type=info.class_name,
            depth=info.depth,
            parameters=info.num_params,
            trainable_parameters=info.trainable_params,
            input_size=list(info.input_size),
            output_size=list(info.output_size),
            flops_per_token=flops.get(names.get(info.layer_id, ""), 0),
        )
        for info in summary.summary_list
    ]
