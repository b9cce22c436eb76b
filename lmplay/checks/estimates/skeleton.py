"""A model without storage: all shapes, no memory, no time. What the estimates are made on."""

from __future__ import annotations

from typing import Any

import torch

from lmplay.base.base_model import LMBase
from lmplay.base.base_runner import LMRunnerBase
from lmplay.base.without_init import WithoutInit


def build_skeleton(runner: LMRunnerBase, **typed: Any) -> LMBase:
    """The model of `runner` on the meta device; on the CPU where its constructor computes with values."""
    try:
        with torch.device("meta"), WithoutInit():
            return runner.build_model(**typed)
    except (NotImplementedError, RuntimeError):  # "Cannot copy out of meta tensor", "item() on meta tensors"
        return runner.build_model(**typed)


def meta_tokens(model: LMBase, rows: int, length: int) -> torch.Tensor:
    """Token ids `(rows, length)`, all zero, where the model is."""
    return torch.zeros(rows, length, dtype=torch.long, device=model.device)
