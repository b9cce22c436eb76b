"""How many parameters a model has, and in which part of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

from lmplay.base.base_model import LMBase


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Tied parameters count once. `non_embedding` leaves out the tables that are looked up: token and position
    embeddings; the output projection is multiplied with, and counts.
    """

    total: int
    trainable: int
    non_embedding: int
    by_part: dict[str, int]
    """By child of the model: "tok_embed", "blocks", ...; the sum is `total`."""


def count_parameters(model: LMBase) -> Parameters:
    """Counts parameters of any model; works without storage."""
    by_part: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0]
        by_part[part] = by_part.get(part, 0) + parameter.numel()
    total = sum(by_part.values())
    return Parameters(
        total=total,
        trainable=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        non_embedding=total - sum(parameter.numel() for parameter in looked_up(model)),
        by_part=by_part,
    )


def looked_up(model: LMBase) -> list[torch.Tensor]:
    """Embedding tables and learned positions, unless a linear layer multiplies with the same tensor."""
    multiplied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    tables: list[torch.Tensor] = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    # A position table that is a parameter of the model itself, as `pos_embed` of the baseline.
    tables += [parameter for name, parameter in model.named_parameters(recurse=False) if re.search(r"pos|embed", name)]
    return [table for table in {id(table): table for table in tables}.values() if id(table) not in multiplied]
