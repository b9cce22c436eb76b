"""Parameters, FLOPs and memory against what torch does when the model really runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lmplay.base.base_model import BasicModelRunner, LMBase
from lmplay.base.runner_list import get_runner
from lmplay.checks.description import describe
from lmplay.checks.estimates import (
    build_skeleton,
    count_parameters,
    estimate_flops,
    estimate_memory,
    layer_table,
)
from lmplay.checks.estimates.flops import closed_form_flops
from lmplay.checks.estimates.memory import activation_bytes, largest_mini_batch

TINY = {"num_blocks": 2, "embed_dim": 32, "num_heads": 2, "max_len": 64}


class Plain(LMBase):
    """Has a `forward` and nothing else, and asks its values while it is built."""

    def __init__(self, width: int = 8, max_len: int = 16, asks: bool = False, **ignore: Any) -> None:
        super().__init__("plain", width=width, max_len=max_len)
        self.embed = nn.Embedding(self.vocab_size, width)
        self.fc = nn.Linear(width, self.vocab_size)
        self.scale = float(torch.ones(1).sum()) if asks else 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.embed(x))
        return logits


def test_parameters_are_those_of_the_real_model_by_part_and_tied_ones_count_once() -> None:
    real = get_runner("test_runner").build_model(**TINY)
    counted = count_parameters(build_skeleton(get_runner("test_runner"), **TINY))
    assert counted.total == sum(parameter.numel() for parameter in real.parameters()) == sum(counted.by_part.values())
    assert counted.by_part["blocks"] == 2 * (12 * 32**2 + 13 * 32)
    assert counted.non_embedding == counted.by_part["blocks"] + 2 * 32 + 50257 * 32
    real.pos_embed.requires_grad_(False)
    assert count_parameters(real).trainable == counted.total - 64 * 32

    tied = Plain(8)
    tied.fc.weight = tied.embed.weight
    assert count_parameters(tied).total == count_parameters(tied).non_embedding == 50257 * 8 + 50257


def test_large_models_are_described_without_building_their_weights() -> None:
    model = build_skeleton(get_runner("gpt2ish_large"))
    assert all(parameter.is_meta for parameter in model.parameters())
    counted = count_parameters(model)
    assert counted.total == 36 * (12 * 1280**2 + 13 * 1280) + 2 * 50257 * 1280 + 1024 * 1280 + 2 * 1280


@pytest.mark.parametrize("name", ["test_runner", "gpt2ish", "s_gpt2ish"])
def test_counted_flops_equal_the_closed_form(name: str) -> None:
    model = build_skeleton(get_runner(name))
    flops = estimate_flops(model, 256)
    kwargs = model.init_kwargs
    dim, blocks = kwargs["embed_dim"], kwargs["num_blocks"]
    assert flops.method == "counted"
    assert flops.forward == closed_form_flops(model, 256) == blocks * (24 * dim**2 + 4 * 256 * dim) + 2 * dim * 50257
    assert flops.training == 3 * flops.forward
    assert flops.by_module["fc"] == 2 * dim * 50257
    assert flops.by_module["blocks.0.attn"] == 8 * dim**2 + 4 * 256 * dim


def test_a_model_that_needs_values_to_be_built_is_described_all_the_same() -> None:
    description = describe(BasicModelRunner(Plain, overrides={"asks": True}))
    assert description.parameters.total == 2 * 50257 * 8 + 50257
    assert description.flops.forward == 2 * 8 * 50257
    assert [layer.name for layer in description.layers] == ["", "embed", "fc"]


def kept_bytes(model: LMBase, rows: int, length: int) -> int:
    """The oracle: what autograd keeps when the model runs with storage."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.zeros(rows, length, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if hasattr(model, "hidden"):
            result = model.hidden(tokens)
        else:
            result = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activation_memory_is_what_autograd_keeps(dropout: float) -> None:
    settings = {**TINY, "attn_dropout": dropout, "ff_dropout": dropout, "embed_dropout": dropout}
    runner = get_runner("test_runner")
    estimated = activation_bytes(build_skeleton(runner, **settings), 3, 48)
    loss = 3 * 48 * 32 * 4 + 50257 * 32 * 4  # gradients of the hidden states and of the output projection
    measured = kept_bytes(runner.build_model(**settings).train(), 3, 48)
    assert estimated - loss == pytest.approx(measured, rel=0.02)


def test_activation_memory_without_hidden_states_holds_the_logits() -> None:
    model = Plain(8)
    assert activation_bytes(model.to("meta"), 2, 16) == pytest.approx(kept_bytes(Plain(8), 2, 16), rel=0.02)


def test_memory_of_dropout_in_attention_is_a_byte_a_weight_on_a_cpu_and_none_on_an_accelerator() -> None:
    settings = {**TINY, "max_len": 1024, "ff_dropout": 0.0, "embed_dropout": 0.0}
    weights = 4 * 2 * 1024**2 / 2  # rows * heads * what causality allows

    def difference(dropout: float) -> int:
        model = build_skeleton(get_runner("test_runner"), **settings, attn_dropout=dropout)
        on_cpu, on_cuda = (activation_bytes(model, 4, 1024, device_type=device) for device in ("cpu", "cuda"))
        return on_cpu - on_cuda

    assert difference(0.1) - difference(0.0) == pytest.approx(TINY["num_blocks"] * weights, rel=0.1)


def test_memory_adds_up_and_tells_the_largest_mini_batch() -> None:
    model = build_skeleton(get_runner("test_runner"), **TINY)
    memory = estimate_memory(model, mini_batch_size=5)
    assert memory.weights == memory.gradients == count_parameters(model).total * 4
    assert memory.optimizer == 2 * memory.weights
    assert memory.total == 4 * memory.weights + (memory.activations or 0)
    for rows in (1, 5, 12):
        needed = estimate_memory(model, mini_batch_size=rows).total
        assert largest_mini_batch(model, needed) == rows
        assert largest_mini_batch(model, needed - 1) == rows - 1


def test_layers_carry_their_names_sizes_and_flops() -> None:
    model = build_skeleton(get_runner("test_runner"), **TINY)
    flops = estimate_flops(model)
    layers = {layer.name: layer for layer in layer_table(model, flops.by_module)}
    assert layers[""].parameters == count_parameters(model).total
    assert layers[""].flops_per_token == flops.forward
    assert layers["blocks.1.ff.up"].output_size == [1, 64, 128]
    assert layers["blocks.1.ff.up"].parameters == 32 * 128 + 128
    assert layers["blocks.1.ff.up"].flops_per_token == 2 * 32 * 128
    assert layers["fc"].output_size == [1, 64, 50257]
