"""Initialisation of weights."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def init_gpt2_(model: nn.Module, num_blocks: int, std: float = 0.02) -> None:
    """GPT-2's: normal weights of deviation `std`, zero biases, unit layer norms.

    Layers that write into the residual path are scaled by 1/sqrt(2 * num_blocks), so that the sum of the 2 * num_blocks
    contributions keeps its size whatever the depth (Radford et al. 2019, "Language Models are Unsupervised Multitask
    Learners", section 2.3). Parameters that belong to the model itself, such as learned positions, count as weights.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for parameter in model.parameters(recurse=False):
        nn.init.normal_(parameter, std=std)
    for module in model.modules():
        projections = getattr(module, "residual_projections", None)
        if callable(projections):
            for layer in projections():
                nn.init.normal_(layer.weight, std=std / math.sqrt(2 * num_blocks))
