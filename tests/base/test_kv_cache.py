"""The cache: memory taken once, rows and lengths kept apart, and mistakes that are named."""

from __future__ import annotations

import pytest
import torch

from lmplay.base.kv_cache import KVCache, LayerCache, cache_length, layer_cache, token_positions
from lmplay.exp.gpt2ish.model import GPT2
from lmplay.modules import Block, MultiheadAttention


@pytest.fixture(scope="module")
def model() -> GPT2:
    torch.manual_seed(0)
    return GPT2(num_blocks=2, embed_dim=16, num_heads=2, max_len=32).eval()


def keys(batch: int, length: int) -> torch.Tensor:
    return torch.randn(batch, 2, length, 8)


def test_memory_is_taken_once_and_old_keys_stay_where_they_are() -> None:
    layer = LayerCache(capacity=32)
    first = keys(3, 4)
    layer.update(first, first)
    assert layer.keys is not None
    place, taken = layer.keys.data_ptr(), layer.nbytes
    assert taken == 2 * 3 * 2 * 32 * 8 * 4
    for _ in range(28):
        all_keys, _ = layer.update(keys(3, 1), keys(3, 1))
    assert all_keys.shape == (3, 2, 32, 8)
    assert torch.equal(all_keys[:, :, :4], first)
    assert (layer.keys.data_ptr(), layer.nbytes) == (place, taken)
    with pytest.raises(ValueError, match="room for 32 positions, and 33 are needed"):
        layer.update(keys(3, 1), keys(3, 1))


def test_a_layer_without_a_limit_grows_by_doubling_and_keeps_its_content() -> None:
    layer, given = LayerCache(), keys(1, 200)
    sizes = set()
    for position in range(200):
        piece = given[:, :, position : position + 1]
        all_keys, all_values = layer.update(piece, piece)
        assert layer.keys is not None
        sizes.add(layer.keys.size(2))
    assert torch.equal(all_keys, given)
    assert torch.equal(all_values, given)
    assert sizes == {64, 128, 256}


def test_another_batch_is_refused(model: GPT2) -> None:
    with torch.no_grad():
        _, cache = model(torch.zeros(3, 4, dtype=torch.long), model.make_cache(3))
        for wrong in (cache, model.make_cache(2)):
            with pytest.raises(ValueError, match=r"the cache holds \d rows and was given 1"):
                model(torch.zeros(1, 1, dtype=torch.long), wrong)


def test_a_truncated_cache_equals_one_that_never_saw_more(model: GPT2) -> None:
    tokens = torch.randint(model.vocab_size, (2, 20))
    with torch.no_grad():
        cache = model.make_cache(2)
        model(tokens, cache)
        assert cache.can_truncate
        cache.truncate(7)
        assert cache.length == 7
        got, _ = model(tokens[:, 7:12].flip(1), cache)
        expected = model(torch.cat((tokens[:, :7], tokens[:, 7:12].flip(1)), dim=1))
    torch.testing.assert_close(got[:, 0], expected[:, -1])


def test_selected_rows_go_on_as_they_would_have(model: GPT2) -> None:
    tokens = torch.randint(model.vocab_size, (3, 10))
    padding = torch.tensor([0, 2, 5])
    rows = torch.tensor([2, 0, 2, 1])
    with torch.inference_mode():
        cache = model.make_cache(3, left_padding=padding)
        model(tokens[:, :9], cache)
        cache.select_rows(rows)
        got, _ = model(tokens[rows, 9:], cache)
        fresh = model.make_cache(4, left_padding=padding[rows])
        expected, _ = model(tokens[rows], fresh)
    torch.testing.assert_close(got, expected)


def test_a_cache_filled_in_inference_mode_can_be_used_outside_of_it(model: GPT2) -> None:
    with torch.inference_mode():
        _, cache = model(torch.zeros(1, 4, dtype=torch.long), model.make_cache(1))
    with torch.no_grad():
        model(torch.zeros(1, 1, dtype=torch.long), cache)
    assert cache.length == 5


def test_a_cache_of_another_dtype_takes_less_memory(model: GPT2) -> None:
    tokens = torch.randint(model.vocab_size, (1, 12))
    with torch.no_grad():
        whole, half = model.make_cache(1), model.make_cache(1, dtype=torch.bfloat16)
        expected, _ = model(tokens, whole)
        got, _ = model(tokens, half)
    assert half.nbytes * 2 == whole.nbytes == 2 * 2 * 32 * 16 * 4
    torch.testing.assert_close(got, expected, atol=1e-2, rtol=1e-2)


def test_the_models_limit_bounds_the_cache(model: GPT2) -> None:
    assert model.make_cache(1).capacity == model.make_cache(1, max_len=100).capacity == 32
    assert model.make_cache(1, max_len=8).capacity == 8


def test_left_padding_needs_a_model_that_honours_it() -> None:
    class Unaware(GPT2):
        supports_left_padding = False

    with pytest.raises(ValueError, match="Unaware does not support left padding"):
        Unaware(num_blocks=1, embed_dim=4, num_heads=1, max_len=4).make_cache(1, left_padding=torch.tensor([0]))


@pytest.mark.parametrize("module", ["block", "attention"])
def test_a_layer_takes_its_own_entry_or_a_list_that_it_grows(module: str) -> None:
    torch.manual_seed(0)
    layer = (Block(16, 2) if module == "block" else MultiheadAttention(16, 2)).eval()
    x = torch.randn(3, 9, 16)
    with torch.no_grad():
        expected = layer(x)
        for cache in ([], LayerCache(), layer_cache(KVCache(capacity=9), 0)):
            pieces = [layer(x[:, :4], cache=cache), layer(x[:, 4:5], cache=cache), layer(x[:, 5:], cache=cache)]
            torch.testing.assert_close(torch.cat(pieces, dim=1), expected)
    grown: list[torch.Tensor] = []
    layer(x, cache=grown)
    assert cache_length([grown]) == 9
    assert cache_length([[]]) == cache_length([]) == cache_length(None) == 0
    with pytest.raises(ValueError, match="a layer takes its own entry of the cache"):
        layer(x, cache=[LayerCache()])


def test_positions_go_on_after_the_cache_and_begin_after_padding_and_at_documents(model: GPT2) -> None:
    x = torch.zeros(2, 4, dtype=torch.long)
    assert token_positions(x).tolist() == [[0, 1, 2, 3]]
    cache = model.make_cache(2, left_padding=torch.tensor([0, 2]))
    assert token_positions(x, cache).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    with torch.no_grad():
        model(x, cache)
    assert token_positions(x, cache).tolist() == [[4, 5, 6, 7], [2, 3, 4, 5]]
    documents = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 2]])
    assert token_positions(x, documents=documents).tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match="either `cache` or `documents`"):
        token_positions(x, [], documents)
