"""The decode loop against the plain way: run the whole text through the model for each token."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lmplay.base.base_model import LMBase
from lmplay.generate import SamplingConfig, generate, generate_text
from lmplay.generate.context import Context
from lmplay.generate.sampling import filter_logits

GREEDY = SamplingConfig(temperature=0, max_tokens=12)


def greedy_by_full_forward(model: LMBase, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


class PlainListModel(LMBase):
    """Grows a plain list with a structure of its own, as the reference contract allows."""

    def __init__(self, inner: LMBase) -> None:
        super().__init__("plain_list")
        self.inner, self.max_len = inner, inner.max_len

    def forward(self, x: torch.Tensor, cache: list[torch.Tensor] | None = None) -> object:
        if cache is None:
            return self.inner(x)
        cache[:] = [torch.cat([*cache, x], dim=1)]
        return self.inner(cache[0])[:, -1:], cache


class NoCacheModel(LMBase):
    def __init__(self, inner: LMBase) -> None:
        super().__init__("no_cache")
        self.inner, self.max_len = inner, inner.max_len

    def forward(self, x: torch.Tensor) -> object:
        return self.inner(x)


class PaddedVocabularyModel(NoCacheModel):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.inner(x)
        return torch.cat([logits, torch.full_like(logits[..., :47], 1e4)], dim=-1)


class ScriptedModel(LMBase):
    """Says a fixed text whatever it is asked, then `then` for ever."""

    def __init__(self, text: str, then: int | None = None, max_len: int = 1024) -> None:
        super().__init__("scripted")
        self.max_len = max_len
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.script = self.tokenizer.encode_ordinary(text)
        self.then = self.tokenizer.eot_token if then is None else then

    def forward(self, x: torch.Tensor, cache: list[int] | None = None) -> object:
        assert cache is not None
        cache[:] = [cache[0] + 1 if cache else 0]
        token = self.script[cache[0]] if cache[0] < len(self.script) else self.then
        logits = torch.zeros(x.size(0), 1, self.vocab_size)
        logits[..., token] = 50.0
        return logits, cache


@pytest.mark.parametrize("wrap", [lambda model: model, PlainListModel, NoCacheModel, PaddedVocabularyModel])
def test_greedy_text_equals_argmax_of_the_full_forward_pass(model: LMBase, wrap: Callable[[LMBase], LMBase]) -> None:
    prompt = [10, 500, 7, 31000]
    result = generate(wrap(model), [prompt], GREEDY)[0]
    assert result.tokens == greedy_by_full_forward(model, prompt, 12)
    assert result.stopped_by == "max_tokens"
    assert result.text == model.tokenizer.decode(result.tokens)


@pytest.mark.parametrize("wrap", [lambda model: model, PlainListModel])
def test_prompts_of_different_lengths_give_in_a_batch_what_they_give_alone(
    model: LMBase, wrap: Callable[[LMBase], LMBase]
) -> None:
    prompts = ["one", "A much longer prompt than the other two, with commas.", "middling, this one"]
    config = SamplingConfig(temperature=1.0, top_k=20, max_tokens=10, seed=3)
    together = generate(wrap(model), prompts, config, samples=2)
    assert len(together) == 6
    for index, prompt in enumerate(prompts):
        for sample in range(2):
            alone = generate(model, [prompt], config.model_copy(update={"seed": 3 + sample}))[0]
            assert together[2 * index + sample].tokens == alone.tokens


def test_samples_of_one_prompt_differ_and_the_same_seed_repeats_them(model: LMBase) -> None:
    config = SamplingConfig(temperature=1.0, top_k=0, max_tokens=8)
    first, again = (generate(model, ["The"], config, samples=3) for _ in range(2))
    assert [item.tokens for item in first] == [item.tokens for item in again]
    assert len({tuple(item.tokens) for item in first}) == 3


def test_the_global_generator_and_the_modes_of_modules_are_left_alone(make_model: Callable[..., LMBase]) -> None:
    model = make_model().train()
    frozen = next(module for module in model.modules() if isinstance(module, torch.nn.Dropout))
    frozen.eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert generate_text(model, "The", max_tokens=5) == generate_text(model, "The", max_tokens=5)  # no dropout
    assert torch.get_rng_state().equal(state)
    assert [module.training for module in model.modules()] == modes
    model(torch.tensor([[1, 2]])).sum().backward()  # nothing made in the loop is in the way of training


def test_a_text_longer_than_max_len_slides_and_goes_on(model: LMBase) -> None:
    result = generate(model, ["word " * 50], SamplingConfig(max_tokens=60, temperature=1.0))[0]
    assert len(result.tokens) == 60
    assert result.slides == 3  # at the 65th token, and whenever 48 kept ones have grown to 65 again


def test_after_a_slide_the_text_is_that_of_a_fresh_start_from_the_tokens_kept(model: LMBase) -> None:
    context = Context(model)
    tokens = torch.randint(0, 50257, (80,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.no_grad():
        context.feed([tokens[:64]])
        for token in tokens[64:]:
            logits = context.feed([[token]])
        assert context.slides == 1
        assert len(context.rows[0]) == 63
        expected = model(torch.tensor(context.rows))[:, -1]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_prompt_longer_than_max_len_keeps_its_end(model: LMBase) -> None:
    tokens = torch.randint(0, 50257, (100,), generator=torch.Generator().manual_seed(2)).tolist()
    result = generate(model, [tokens], GREEDY.model_copy(update={"max_tokens": 3}))[0]
    assert result.slides == 1
    assert result.tokens == greedy_by_full_forward(model, tokens[-48:], 3)


def test_end_of_text_ends_the_text_and_is_no_part_of_it() -> None:
    result = generate(ScriptedModel("It ends."), [""], SamplingConfig(temperature=0))[0]
    assert (result.text, result.stopped_by) == ("It ends.", "end_of_text")
    assert result.prompt_tokens == [50256]  # an empty prompt is the beginning of a document


def test_a_stop_string_is_never_shown() -> None:
    shown: list[str] = []
    model = ScriptedModel("Answer: 42\nQuestion: more?")
    config = SamplingConfig(temperature=0, stop=("\nQuestion:",))
    result = generate(model, ["?"], config, on_text=lambda _, text: shown.append(text))[0]
    assert (result.text, result.stopped_by) == ("Answer: 42", "stop")
    assert "".join(shown) == "Answer: 42"


def test_what_was_held_back_is_shown_when_no_stop_string_came_of_it() -> None:
    shown: list[str] = []
    config = SamplingConfig(temperature=0, stop=("\nQuestion",))
    generate(ScriptedModel("Answer\nQuest"), ["?"], config, on_text=lambda _, text: shown.append(text))
    assert "".join(shown) == "Answer\nQuest"


def test_rows_of_a_batch_end_by_themselves(model: LMBase) -> None:
    config = SamplingConfig(temperature=1.0, max_tokens=30, seed=1)
    free = generate(model, ["a", "b c d"], config)
    stop = free[0].text[5:8]
    assert stop
    ended = generate(model, ["a", "b c d"], config.model_copy(update={"stop": (stop,)}))
    assert ended[0].text == free[0].text[: free[0].text.index(stop)]
    assert ended[0].stopped_by == "stop"
    if stop not in free[1].text:
        assert ended[1].text == free[1].text


def test_cancelling_keeps_what_was_written() -> None:
    asked = iter([False, False, False, True])
    result = generate(ScriptedModel("one two three four five"), [""], cancelled=lambda: next(asked))[0]
    assert (result.text, result.stopped_by) == ("one two three", "cancelled")


def test_probabilities_are_the_models_own(model: LMBase) -> None:
    prompt = [5, 6, 7]
    config = SamplingConfig(temperature=0.5, top_k=3, max_tokens=4)
    result = generate(model, [prompt], config, probabilities=2)[0]
    expected = model(torch.tensor([prompt + result.tokens])).detach().softmax(dim=-1)[0, 2:-1]
    for item, token, shares in zip(result.probabilities, result.tokens, expected, strict=True):
        assert item.token == token
        assert item.probability == pytest.approx(float(shares[token]), rel=1e-3)
        assert [other.token for other in item.alternatives] == shares.topk(2).indices.tolist()


def test_repetition_penalty_counts_the_prompt_and_the_answer(model: LMBase) -> None:
    prompt = [5, 6, 7]
    config = SamplingConfig(temperature=0, repetition_penalty=1.8, max_tokens=8)
    tokens = list(prompt)
    for _ in range(8):
        logits = model(torch.tensor([tokens]))[:, -1].detach()
        reference = config.model_copy(update={"temperature": 1.0, "top_k": 0})
        tokens.append(int(filter_logits(logits, [torch.tensor(tokens)], reference).argmax()))
    assert generate(model, [prompt], config)[0].tokens == tokens[3:]


def test_logits_that_are_not_numbers_end_the_row_and_say_so(make_model: Callable[..., LMBase]) -> None:
    broken = make_model()
    with torch.no_grad():
        broken.output_projection.weight[3, 3] = torch.nan
    result = generate(broken, ["The"], SamplingConfig(max_tokens=5))[0]
    assert (result.stopped_by, result.tokens) == ("not_finite", [])


def test_no_tokens_asked_for_gives_none(model: LMBase) -> None:
    result = generate(model, ["The"], SamplingConfig(max_tokens=0))[0]
    assert (result.text, result.tokens, result.stopped_by) == ("", [], "max_tokens")
