"""The moving average of the weights (`--ema`): what is validated, sampled from and saved as the model when it is on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lmplay.train.parallel.tensors import local


class WeightAverage:
    """`average = decay * average + (1 - decay) * weights` after each update, kept in float32 or wider.

    The decay rises with the updates as (1 + n) / (10 + n) until it reaches its value, so that a short run's average is
    not mostly its random beginning.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._named = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
        self._names = {id(parameter): name for name, parameter in self._named.items()}
        self._average = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in self._named.items()
        }

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Move towards the weights as they are after update number `updates` (from 1)."""
        share = 1.0 - min(self.decay, (1 + updates) / (10 + updates))
        for name, parameter in self._named.items():
            average = local(self._average[name])
            average.lerp_(local(parameter).to(average.dtype), share)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model's weights are the average; afterwards they are what they were, bit by bit."""
        held = {name: local(parameter.detach()).clone() for name, parameter in self._named.items()}
        try:
            self._set(self._average)
            yield
        finally:
            self._set(held)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._named.items():
            local(parameter).copy_(local(values[name]))

    def of(self, tensor: Tensor) -> Tensor:
        """The average of one of the model's parameters; whatever else it has (buffers) as it is."""
        name = self._names.get(id(tensor))
        return tensor if name is None else self._average[name].to(tensor.dtype)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin from the weights as they are."""
        for name, parameter in self._named.items():
            local(self._average[name]).copy_(local(parameter))

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, average in self._average.items():
            average.copy_(state[name])
