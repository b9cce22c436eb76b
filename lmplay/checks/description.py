"""Everything that can be said about an experiment before it runs; `lmplay describe` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmplay.base.base_runner import LMRunnerBase
from lmplay.checks.estimates import (
    Flops,
    Layer,
    Memory,
    Parameters,
    build_skeleton,
    count_parameters,
    estimate_flops,
    estimate_memory,
    layer_table,
)
from lmplay.checks.estimates.memory import DEFAULT_MINI_BATCH


@dataclass(frozen=True, kw_only=True)
class Description:
    """Figures of one experiment with the settings that were asked for."""

    name: str
    description: str
    model_class: str
    model_name: str
    settings: dict[str, Any]
    causal: bool
    parameters: Parameters
    flops: Flops
    memory: Memory
    layers: list[Layer]

    def to_dict(self) -> dict[str, Any]:
        """The shape of `describe --json`. FLOPs are those of a forward pass; training takes three times as many."""
        return {
            "name": self.name,
            "description": self.description,
            "model_class": self.model_class,
            "settings": self.settings,
            "causal": self.causal,
            "parameters": self.parameters.total,
            "trainable_parameters": self.parameters.trainable,
            "non_embedding_parameters": self.parameters.non_embedding,
            "parameters_by_part": self.parameters.by_part,
            "flops_per_token": self.flops.forward,
            "training_flops_per_token": self.flops.training,
            "memory": self.memory.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }


def describe(
    runner: LMRunnerBase,
    *,
    settings: Mapping[str, Any] | None = None,
    mini_batch_size: int = DEFAULT_MINI_BATCH,
    device_type: str = "cpu",
) -> Description:
    """Build the model without storage and look at it."""
    model = build_skeleton(runner, **(settings or {}))
    flops = estimate_flops(model)
    return Description(
        name=runner.name,
        description=runner.description,
        model_class=f"{type(model).__module__}.{type(model).__qualname__}",
        model_name=model.name,
        settings=model.init_kwargs,
        causal=model.causal,
        parameters=count_parameters(model),
        flops=flops,
        memory=estimate_memory(model, mini_batch_size=mini_batch_size, device_type=device_type),
        layers=layer_table(model, flops.by_module),
    )
