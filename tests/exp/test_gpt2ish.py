"""The baseline against its reference: transformers' GPT-2 with the same weights."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import nn

from lmplay.base.runner_list import get_runner
from lmplay.exp.gpt2ish.model import GPT2

VERSIONS = {
    "gpt2ish": (6, 768, 12),
    "gpt2ish_med": (24, 1024, 16),
    "gpt2ish_large": (36, 1280, 20),
    "gpt2ish_small": (2, 256, 4),
    "s_gpt2ish": (18, 288, 6),
    "test_runner": (2, 64, 2),
}


def spread_(model: nn.Module, std: float = 0.3) -> nn.Module:
    """Weights far from their initial values, so that a swapped matrix or a wrong scale shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, std, generator=generator)
    return model


@pytest.fixture(scope="module")
def model() -> GPT2:
    return spread_(GPT2(num_blocks=2, embed_dim=64, num_heads=2, max_len=64)).eval()


def as_transformers(model: GPT2) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    kwargs = model.init_kwargs
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=model.vocab_size,
            n_positions=model.max_len,
            n_embd=kwargs["embed_dim"],
            n_layer=kwargs["num_blocks"],
            n_head=kwargs["num_heads"],
            activation_function="gelu",
            tie_word_embeddings=False,
        )
    )
    state = {
        "transformer.wte.weight": model.tok_embed.weight,
        "transformer.wpe.weight": model.pos_embed[0],
        "transformer.ln_f.weight": model.ln.weight,
        "transformer.ln_f.bias": model.ln.bias,
        "lm_head.weight": model.fc.weight,
    }
    names = {"ln_1": "ln1", "ln_2": "ln2", "attn.c_attn": "attn.qkv", "attn.c_proj": "attn.proj"}
    names |= {"mlp.c_fc": "ff.up", "mlp.c_proj": "ff.down"}
    ours = model.state_dict()
    for block in range(kwargs["num_blocks"]):
        for theirs_name, ours_name in names.items():
            weight = ours[f"blocks.{block}.{ours_name}.weight"]
            # transformers keeps the projections of GPT-2 as (in, out).
            state[f"transformer.h.{block}.{theirs_name}.weight"] = weight.T if weight.dim() == 2 else weight
            state[f"transformer.h.{block}.{theirs_name}.bias"] = ours[f"blocks.{block}.{ours_name}.bias"]
    theirs.load_state_dict(state)
    return theirs.eval()


def test_logits_equal_transformers_gpt2_with_copied_weights(model: GPT2) -> None:
    tokens = torch.randint(model.vocab_size, (3, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = as_transformers(model)(tokens).logits
        torch.testing.assert_close(model(tokens), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("prompt", [1, 7, 40])
@pytest.mark.parametrize("kind", ["preallocated", "plain list"])
def test_greedy_tokens_with_the_cache_equal_those_without_it(model: GPT2, batch: int, prompt: int, kind: str) -> None:
    tokens = torch.randint(model.vocab_size, (batch, prompt), generator=torch.Generator().manual_seed(prompt))
    cache = model.make_cache(batch) if kind == "preallocated" else []
    with torch.no_grad():
        fed, sequence = tokens, tokens
        for _ in range(64 - prompt if prompt == 40 else 12):
            logits, cache = model(fed, cache)
            assert logits.shape == (batch, 1, model.vocab_size)
            fed = logits[:, -1].argmax(dim=-1, keepdim=True)
            expected = model(sequence)[:, -1].argmax(dim=-1, keepdim=True)
            assert torch.equal(fed, expected)
            sequence = torch.cat((sequence, fed), dim=1)


def test_left_padded_rows_equal_the_same_rows_alone(model: GPT2) -> None:
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(model.vocab_size, (1, length), generator=generator) for length in (3, 11, 20)]
    padding = torch.tensor([20 - row.size(1) for row in rows])
    padded = torch.cat([nn.functional.pad(row, (20 - row.size(1), 0)) for row in rows])
    following = torch.randint(model.vocab_size, (3, 5), generator=generator)
    cache = model.make_cache(3, left_padding=padding)
    with torch.no_grad():
        logits = [model(padded, cache)[0], model(following[:, :1], cache)[0], model(following[:, 1:], cache)[0]]
        for i, row in enumerate(rows):
            alone = model(torch.cat((row, following[i : i + 1]), dim=1))[0]
            for got, position in zip(logits, (-6, -5, -1), strict=True):
                torch.testing.assert_close(got[i, 0], alone[position], atol=2e-5, rtol=1e-5)


def test_packed_documents_equal_the_same_documents_alone(model: GPT2) -> None:
    lengths = (9, 1, 22)
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths)).unsqueeze(0)
    tokens = torch.randint(model.vocab_size, (1, 32), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        packed = model.hidden(tokens, documents=documents)
        for part, piece in zip(packed.split(lengths, dim=1), tokens.split(lengths, dim=1), strict=True):
            torch.testing.assert_close(part, model.hidden(piece), atol=2e-5, rtol=1e-5)


def test_constructor_and_attributes_are_those_of_the_reference() -> None:
    assert str(inspect.signature(GPT2)) == (
        "(max_len=1024, num_heads=12, num_blocks=6, embed_dim=768, attn_dropout=0.1, ff_dropout=0.1, "
        "embed_dropout=0.1, version='gpt2ish', **ignore)"
    )
    with torch.device("meta"):
        model = GPT2(num_blocks=1, unknown_setting=3)
    assert model.pos_embed.shape == (1, 1024, 768)
    assert model.tok_embed.weight.shape == model.fc.weight.shape == (50257, 768)
    assert model.fc.bias is None
    assert model.fc.weight is not model.tok_embed.weight
    assert [name for name, _ in model.named_children()] == ["tok_embed", "dropout", "blocks", "ln", "fc"]


@pytest.mark.parametrize("name", VERSIONS)
def test_versions_have_the_sizes_of_the_reference(name: str) -> None:
    parameters = get_runner(name).model_parameters()
    sizes = tuple(parameters[key].default for key in ("num_blocks", "embed_dim", "num_heads"))
    assert sizes == VERSIONS[name]


def test_initial_weights_follow_gpt2() -> None:
    torch.manual_seed(0)
    model = GPT2(num_blocks=8, embed_dim=128, num_heads=4, max_len=256)
    state = model.state_dict()
    residual = 0.02 / math.sqrt(2 * 8)
    for name, tensor in state.items():
        if name.endswith(".bias"):
            assert not tensor.any(), name
        elif ".ln" in name or name == "ln.weight":
            assert (tensor == 1).all(), name
        else:
            expected = residual if name.endswith(("attn.proj.weight", "ff.down.weight")) else 0.02
            assert float(tensor.std()) == pytest.approx(expected, rel=0.05), name
    loss = nn.functional.cross_entropy(model(torch.arange(64)[None])[0], torch.arange(64) + 7)
    assert float(loss.detach()) == pytest.approx(math.log(50257), abs=0.1)


def test_more_tokens_than_max_len_say_so(model: GPT2) -> None:
    with pytest.raises(ValueError, match="65 tokens are more than the model's max_len of 64"):
        model(torch.zeros(1, 65, dtype=torch.long))
    with torch.no_grad():
        _, cache = model(torch.zeros(1, 60, dtype=torch.long), [])
        with pytest.raises(ValueError, match="5 tokens after 60 in the cache"):
            model(torch.zeros(1, 5, dtype=torch.long), cache)
