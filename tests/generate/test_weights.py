"""Weights laid out for decoding give the model's own logits; shortened ones stay near them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lmplay.base.base_model import LMBase
from lmplay.generate import SamplingConfig, generate
from lmplay.generate.weight_report import compare_weights
from lmplay.generate.weights import (
    BFloat16Linear,
    Int8Linear,
    PackedBFloat16Linear,
    SplitLinear,
    bfloat16_layer,
    prepare_for_inference,
    weight_bytes,
)
from lmplay.utils.errors import WrongUsageError

TOKENS = torch.randint(0, 50257, (2, 40), generator=torch.Generator().manual_seed(0))


def linear(inputs: int = 96, outputs: int = 80, *, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def test_float32_weights_are_only_laid_out_anew(model: LMBase, make_model: Callable[..., LMBase]) -> None:
    prepared = make_model()
    assert prepare_for_inference(prepared) == "float32"
    assert type(prepared.output_projection) is SplitLinear
    assert type(prepared.blocks[0].ff.up) is nn.Linear  # small enough for a core's cache
    with torch.inference_mode():
        torch.testing.assert_close(prepared(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-4)
    config = SamplingConfig(temperature=0, max_tokens=30)
    assert generate(prepared, ["The"], config)[0].tokens == generate(model, ["The"], config)[0].tokens


@pytest.mark.parametrize(("weights", "share_of_spread"), [("bfloat16", 0.02), ("int8", 0.08)])
def test_shortened_weights_stay_near_the_model(
    model: LMBase, make_model: Callable[..., LMBase], weights: str, share_of_spread: float
) -> None:
    prepared = make_model()
    assert prepare_for_inference(prepared, weights) == weights
    assert weight_bytes(prepared) < weight_bytes(model) * {"bfloat16": 0.52, "int8": 0.30}[weights]
    with torch.inference_mode():
        for tokens in (TOKENS, TOKENS[:1, :1]):  # many rows take another way than one
            expected, got = model(tokens), prepared(tokens)
            assert (got - expected).std() < share_of_spread * expected.std()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", [96, 97])  # 97 can't be cut
def test_a_split_layer_is_the_same_layer(inputs: int, bias: bool) -> None:
    plain = linear(inputs, bias=bias)
    split = SplitLinear(plain)
    assert split.weight.equal(plain.weight)
    assert split.weight.stride() == (1, 80)
    with torch.inference_mode():
        for shape in ((inputs,), (1, inputs), (1, 1, inputs), (2, 7, inputs)):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
            torch.testing.assert_close(split(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("kind", [BFloat16Linear, PackedBFloat16Linear, Int8Linear])
def test_a_shortened_layer_is_that_of_its_rounded_weights(
    kind: type[BFloat16Linear | PackedBFloat16Linear | Int8Linear], rows: int, bias: bool
) -> None:
    if kind is PackedBFloat16Linear and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 products for this processor")
    plain = linear(bias=bias)
    short = kind(plain)
    step = plain.weight.abs().amax(dim=1, keepdim=True) / (127 if kind is Int8Linear else 2**7)
    assert ((short.weight - plain.weight).abs() <= step / 2 * 1.01).all()
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(2))
    expected = nn.functional.linear(x, short.weight, plain.bias)
    assert (short(x) - expected).abs().max() < 0.02 * expected.abs().max()


def test_bfloat16_is_packed_only_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_instructions, kind in ((True, PackedBFloat16Linear), (False, BFloat16Linear)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=has_instructions: found)
        assert bfloat16_layer() is kind


def test_one_rows_outliers_cost_its_neighbours_nothing() -> None:
    layer, quiet = Int8Linear(linear()), torch.randn(1, 96, generator=torch.Generator().manual_seed(3))
    loud = torch.randn(1, 96, generator=torch.Generator().manual_seed(4)) * 1e4
    alone = nn.functional.linear(quiet, layer.weight, layer.bias)
    beside = layer(torch.cat([loud, quiet]))[1:]
    assert (beside - alone).abs().max() < 0.02 * alone.abs().max()


def test_a_tied_table_and_a_shared_layer_survive() -> None:
    class Tied(LMBase):
        def __init__(self) -> None:
            super().__init__("tied")
            self.table = nn.Embedding(50257, 8)
            self.mix = nn.Linear(8, 8)
            self.same = self.mix
            self.fc = nn.Linear(8, 50257, bias=False)
            self.fc.weight = self.table.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.same(self.mix(self.table(x))))

    for weights, tolerance in (("float32", 1e-4), ("bfloat16", 0.05), ("int8", 0.1)):
        torch.manual_seed(0)
        model = Tied().eval()
        with torch.inference_mode():
            expected = model(TOKENS)
            prepare_for_inference(model, weights)
            assert (model(TOKENS) - expected).abs().max() < tolerance * expected.abs().max()
        assert model.mix is model.same
        assert model.fc.weight.equal(model.table.weight) == (weights == "float32")


def test_auto_leaves_a_small_model_as_it_is(make_model: Callable[..., LMBase]) -> None:
    assert prepare_for_inference(make_model(), "auto") == "float32"


def test_an_unknown_kind_of_weights_is_wrong_usage(model: LMBase) -> None:
    with pytest.raises(WrongUsageError, match="float32"):
        prepare_for_inference(model, "int4")


def test_the_cost_in_perplexity_is_that_of_the_full_forward_pass(model: LMBase, checkpoint: Path) -> None:
    text = "The cost of shorter weights, stated on this very sentence. " * 12
    reports = list(compare_weights(checkpoint, text, device="cpu"))
    assert [report.weights for report in reports] == ["float32", "bfloat16", "int8"]
    tokens = torch.tensor(model.tokenizer.encode_ordinary(text))
    losses = []
    for start in range(0, len(tokens) - 1, 64):
        window = tokens[start : start + 65]
        losses.append(nn.functional.cross_entropy(model(window[None, :-1])[0], window[1:], reduction="none"))
    expected = float(torch.cat(losses).mean().detach())
    assert reports[0].tokens == len(tokens) - 1
    assert reports[0].loss == pytest.approx(expected, rel=1e-4)
    assert reports[0].perplexity == pytest.approx(math.exp(expected), rel=1e-3)
    for report in reports:
        assert report.change == pytest.approx(report.perplexity / reports[0].perplexity - 1, abs=1e-6)
        assert abs(report.loss - reports[0].loss) < 0.2


def test_a_prompt_is_read_with_the_same_bfloat16_numbers_as_a_token() -> None:
    layer = BFloat16Linear(linear())
    x = torch.randn(6, 96, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(layer(x), torch.cat([layer(row[None]) for row in x]), rtol=1e-2, atol=1e-3)
