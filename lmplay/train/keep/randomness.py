"""Seeds, and the states of every generator that training draws from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Initial weights and dropout draw from torch's generators; Python's and numpy's are seeded for models that use
    them.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@dataclass(frozen=True)
class RandomState:
    """The states of all generators at one moment; cheap to take before every step."""

    host: Tensor  # torch's own, of the CPU
    python: tuple[Any, ...]
    numpy: tuple[str, np.ndarray, int, int, float]
    accelerator: Tensor | None

    @classmethod
    def take(cls, device: torch.device) -> RandomState:
        on_device = None
        if device.type == "cuda":
            on_device = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            on_device = torch.mps.get_rng_state()
        numpy_state: Any = np.random.get_state(legacy=True)
        return cls(torch.get_rng_state(), random.getstate(), numpy_state, on_device)

    def put_back(self, device: torch.device) -> None:
        torch.set_rng_state(self.host)
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        if self.accelerator is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.accelerator, device)
        elif self.accelerator is not None and device.type == "mps":
            torch.mps.set_rng_state(self.accelerator)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors only, so that `torch.load(weights_only=True)` reads them back."""
        version, internal, gauss = self.python
        kind, keys, position, has_gauss, cached = self.numpy
        return {
            "host": self.host,
            "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
            "accelerator": self.accelerator,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RandomState:
        version, internal, gauss = content["python"]
        kind, keys, position, has_gauss, cached = content["numpy"]
        return cls(
            host=content["host"],
            python=(version, tuple(internal.tolist()), gauss),
            numpy=(kind, keys.numpy().astype(np.uint32), position, has_gauss, cached),
            accelerator=content["accelerator"],
        )


@contextlib.contextmanager
def preserved_randomness(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside, training draws afterwards as if nothing had been."""
    state = RandomState.take(device)
    try:
        yield
    finally:
        state.put_back(device)
