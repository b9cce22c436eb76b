"""Compiling a model block by block and in place: parameters keep their names, so checkpoints know nothing of it."""

from __future__ import annotations

import contextlib

import torch
from torch import nn


def compile_blocks(model: nn.Module, backend: str = "inductor") -> int:
    """Compile the repeated blocks of `model`, or all of it where it repeats none; returns how many parts.

    One block's code serves all of them, since they differ in weights only: a deep model compiles as fast as a shallow
    one.
    """
    blocks = repeated_blocks(model)
    for part in blocks or [model]:
        part.compile(backend=backend)
    return len(blocks) or 1


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The members of the outermost list of modules of one class that holds the most parameters."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and _is_uniform(module)]
    largest = max(lists, key=lambda found: sum(p.numel() for p in found.parameters()), default=None)
    return list(largest) if largest is not None else []


def _is_uniform(modules: nn.ModuleList) -> bool:
    return len({type(module) for module in modules}) == 1


def uncompiled() -> contextlib.AbstractContextManager[None]:
    """Inside, compiled modules run as they are written: for shapes that change with every call."""
    stance: contextlib.AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance
