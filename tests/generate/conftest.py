"""Tiny models with wide weights: at GPT-2's own spread all logits of a fresh model are alike, which hides faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import save_model
from lmplay.base.runner_list import get_runner


def spread_model(seed: int = 0, *, std: float = 0.3, **settings: object) -> LMBase:
    model = get_runner("test_runner").build_model(**{"max_len": 64, **settings}).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std, generator=generator)
    return model


@pytest.fixture(scope="session")
def model() -> LMBase:
    """Two blocks, 64 wide, 64 positions; not to be changed by a test."""
    return spread_model()


@pytest.fixture
def make_model() -> Callable[..., LMBase]:
    return spread_model


@pytest.fixture(scope="session")
def checkpoint(model: LMBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(model, folder, experiment="test_runner")
    return folder
