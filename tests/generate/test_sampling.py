"""The samplers against the `transformers` processors, row by row, and the fast path against the reference path."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as hf

from lmplay.generate.config import SamplingConfig, sampling_config
from lmplay.generate.sampling import NUCLEUS_CANDIDATES, Sampler, draw, filter_logits, make_generators
from lmplay.utils.errors import WrongUsageError

CPU = torch.device("cpu")


def logits_of(seed: int, rows: int = 3, vocabulary: int = 211, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def seen_by(seed: int, rows: int = 3, vocabulary: int = 211, length: int = 17) -> torch.Tensor:
    return torch.randint(0, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


def expected_scores(logits: torch.Tensor, seen: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    processors = hf.LogitsProcessorList()
    if config.repetition_penalty != 1.0:
        processors.append(hf.RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.temperature != 1.0:
        processors.append(hf.TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        processors.append(hf.TopKLogitsWarper(config.top_k))
    if config.top_p < 1.0:
        processors.append(hf.TopPLogitsWarper(config.top_p))
    if config.min_p:
        processors.append(hf.MinPLogitsWarper(config.min_p))
    return processors(seen, logits)


CONFIGS = [
    {"temperature": 1.0, "top_k": 0},
    {"temperature": 0.7, "top_k": 0},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.0, "top_k": 10_000},
    {"temperature": 1.0, "top_k": 0, "top_p": 0.83},
    {"temperature": 1.0, "top_k": 0, "top_p": 0.0},
    {"temperature": 1.0, "top_k": 0, "min_p": 0.07},
    {"temperature": 1.0, "top_k": 0, "repetition_penalty": 1.4},
    {"temperature": 1.0, "top_k": 0, "repetition_penalty": 0.6},
    {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("settings_", CONFIGS, ids=str)
def test_filters_equal_the_transformers_processors_row_by_row(settings_: dict[str, float]) -> None:
    config = SamplingConfig(**settings_)
    logits, seen = logits_of(1), seen_by(2)
    torch.testing.assert_close(filter_logits(logits, list(seen), config), expected_scores(logits, seen, config))


@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.2, 3.0),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.05, 1.0),
    min_p=st.sampled_from([0.0, 0.01, 0.3]),
    penalty=st.sampled_from([1.0, 1.3]),
)
@settings(max_examples=40, deadline=None)
def test_any_combination_equals_the_transformers_processors(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty)
    logits, seen = logits_of(seed), seen_by(seed)
    torch.testing.assert_close(filter_logits(logits, list(seen), config), expected_scores(logits, seen, config))


def test_ties_at_the_top_k_border_are_all_kept() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]])
    kept = filter_logits(logits, [], SamplingConfig(temperature=1.0, top_k=2)).isfinite()
    assert kept.tolist() == [[False, True, True, True, False]]


@pytest.mark.parametrize("settings_", [*CONFIGS[2:7], CONFIGS[-1]], ids=str)
@pytest.mark.parametrize("spread", [0.5, 4.0])
@pytest.mark.parametrize("vocabulary", [3 * NUCLEUS_CANDIDATES, 50257])
def test_the_fast_path_keeps_the_same_tokens_with_the_same_probabilities(
    settings_: dict[str, float], spread: float, vocabulary: int
) -> None:
    config = SamplingConfig(**settings_ | {"repetition_penalty": 1.0})
    logits = logits_of(5, vocabulary=vocabulary, spread=spread)
    found = Sampler(config, []).candidates(logits / config.temperature)
    reference = filter_logits(logits, [], config).softmax(dim=-1)
    if found is None:
        assert config.top_p == 1.0  # nothing limits how many survive
        assert config.top_k == 0 or config.top_k > vocabulary
        return
    values, ids = found
    fast = torch.zeros_like(reference).scatter(1, ids, values.softmax(dim=-1))
    assert (fast > 0).equal(reference > 0)
    torch.testing.assert_close(fast, reference)
    sampler = Sampler(config, make_generators(range(3), CPU))
    drawn = draw(filter_logits(logits, [], config), make_generators(range(3), CPU))
    assert sampler(logits, []).equal(drawn)


@pytest.mark.parametrize("spread", [0.02, 0.3, 3.0])
@pytest.mark.parametrize("top_p", [0.05, 0.9, 0.999])
def test_a_nucleus_without_top_k_is_that_of_transformers_however_wide(spread: float, top_p: float) -> None:
    logits = logits_of(8, vocabulary=50257, spread=spread)
    found = Sampler(SamplingConfig(temperature=1.0, top_k=0, top_p=top_p), []).candidates(logits)
    assert found is not None
    values, ids = found
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, values.isfinite())
    expected = hf.TopPLogitsWarper(top_p)(ids, logits).isfinite()
    assert kept.sum(dim=-1).equal(expected.sum(dim=-1))
    assert kept.equal(expected)


def test_ties_at_the_border_of_a_wide_nucleus_are_left_to_the_reference() -> None:
    sampler = Sampler(SamplingConfig(temperature=1.0, top_k=0, top_p=0.5), [])
    assert sampler.candidates(torch.zeros(1, 4 * NUCLEUS_CANDIDATES)) is None


def test_two_logits_that_differ_by_rounding_alone_may_come_in_either_order() -> None:
    one = logits_of(6, rows=1, vocabulary=60, spread=1.0)
    one[0, 5] = one[0, 9] = 4.0
    other = one.clone()
    one[0, 5] += 1e-6
    other[0, 9] += 1e-6
    config = SamplingConfig(temperature=1.0, top_k=20)
    for seed in range(30):
        first, second = (Sampler(config, make_generators([seed], CPU)) for _ in range(2))
        assert first(one, []).equal(second(other, []))


def test_temperature_zero_and_nearly_zero_take_the_best_token() -> None:
    logits = logits_of(3)
    for temperature in (0.0, 1e-30):
        sampler = Sampler(SamplingConfig(temperature=temperature), make_generators([0, 1, 2], CPU))
        assert sampler(logits, []).equal(logits.argmax(dim=-1))


def test_temperature_zero_still_heeds_the_repetition_penalty() -> None:
    sampler = Sampler(SamplingConfig(temperature=0, repetition_penalty=5.0), make_generators([0], CPU))
    assert sampler(torch.tensor([[3.0, 2.0, 1.0]]), [torch.tensor([0, 0])]).tolist() == [1]


@pytest.mark.parametrize("settings_", [{"top_k": 0}, {"top_k": 4}, {"top_k": 0, "top_p": 0.8}], ids=str)
def test_draws_follow_the_probabilities(settings_: dict[str, float]) -> None:
    config = SamplingConfig(temperature=1.0, **settings_)
    logits = logits_of(11, rows=1, vocabulary=12, spread=1.0)
    expected = filter_logits(logits, [], config).softmax(dim=-1)[0]
    rows = 4000
    chosen = Sampler(config, make_generators(range(rows), CPU))(logits.expand(rows, -1), [])
    frequencies = chosen.bincount(minlength=12) / rows
    assert frequencies[expected == 0].sum() == 0
    # Four standard deviations of a frequency.
    assert ((frequencies - expected).abs() <= 4 * (expected * (1 - expected) / rows).sqrt() + 1e-6).all()


def test_a_row_draws_the_same_alone_and_among_others() -> None:
    config, logits = SamplingConfig(temperature=1.0, top_k=0), logits_of(4, rows=3)
    together = Sampler(config, make_generators([7, 8, 9], CPU))
    alone = Sampler(config, make_generators([8], CPU))
    for _ in range(5):
        assert together(logits, [])[1] == alone(logits[1:2], [])[0]


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.full((500, 9), -torch.inf)
    logits[:, 4] = 0.0
    assert set(draw(logits, make_generators(range(500), CPU)).tolist()) == {4}


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"temperature": -1}, "temperature = -1"),
        ({"top_p": 1.5}, "top_p = 1.5"),
        ({"stop": [""]}, "a stop string may not be empty"),
        ({"topk": 5}, "did you mean top_k"),
    ],
)
def test_a_setting_out_of_range_is_wrong_usage_in_one_line(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(WrongUsageError, match=message) as caught:
        sampling_config(**settings_)
    assert "\n" not in str(caught.value)
