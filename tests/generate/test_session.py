"""A session computes only what is new, and writes what a fresh start would write."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmplay.base.base_model import LMBase
from lmplay.generate import SamplingConfig, generate
from lmplay.generate.session import Session

CONFIG = SamplingConfig(temperature=0.9, max_tokens=5)


class Counting:
    """How many positions the model was asked to compute."""

    def __init__(self, model: LMBase) -> None:
        self.computed = 0
        model.register_forward_pre_hook(self._count)

    def _count(self, _: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        self.computed += arguments[0].size(1)


def test_a_second_turn_computes_only_the_new_tokens(make_model: Callable[..., LMBase]) -> None:
    model = make_model()
    session, counting = Session(model), Counting(model)
    first = session.generate([1, 2, 3, 4], CONFIG)
    assert (first.reused_tokens, counting.computed) == (0, 4 + 4)  # the last token of an answer is not fed
    counting.computed = 0
    second = session.generate([1, 2, 3, 4, *first.tokens, 7, 8], CONFIG)
    assert (second.reused_tokens, counting.computed) == (4 + 4, 3 + 4)
    assert second.tokens == generate(model, [[1, 2, 3, 4, *first.tokens, 7, 8]], CONFIG)[0].tokens


def test_the_same_question_again_computes_one_token(model: LMBase) -> None:
    session = Session(model)
    first = session.generate([1, 2, 3, 4], CONFIG)
    again = session.generate([1, 2, 3, 4], CONFIG)
    assert again.tokens == first.tokens
    assert again.reused_tokens == 3


@given(
    texts=st.lists(
        st.tuples(st.integers(0, 40), st.lists(st.integers(0, 3), min_size=1, max_size=30)), min_size=1, max_size=5
    )
)
@settings(max_examples=15, deadline=None)
def test_whatever_came_before_the_text_is_that_of_a_fresh_start(
    model: LMBase, texts: list[tuple[int, list[int]]]
) -> None:
    session, whole = Session(model), list[int]()
    for kept, added in texts:
        whole = whole[:kept] + added
        if len(whole) + CONFIG.max_tokens > model.max_len:
            break  # where the start of a slid text depends on when it slid
        result = session.generate(whole, CONFIG)
        assert result.tokens == generate(model, [whole], CONFIG)[0].tokens
        whole = whole + result.tokens


def test_a_text_that_outgrew_the_model_goes_on_with_its_cache(model: LMBase) -> None:
    session = Session(model)
    whole = torch.randint(0, 50257, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    first = session.generate(whole, CONFIG.model_copy(update={"max_tokens": 10}))
    assert first.slides == 1
    second = session.generate([*whole, *first.tokens, 5], CONFIG)
    assert second.slides == 0
    assert second.reused_tokens == session.held_tokens - 2 - 4


def test_a_model_with_a_cache_of_its_own_kind_starts_anew_where_it_must(model: LMBase) -> None:
    class PlainList(LMBase):
        def __init__(self) -> None:
            super().__init__("plain")
            self.inner = model

        def forward(self, x: torch.Tensor, cache: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
            cache[:] = [torch.cat([*cache, x], dim=1)]
            return self.inner(cache[0])[:, -1:], cache

    session = Session(PlainList())
    first = session.generate([1, 2, 3], CONFIG)
    longer = session.generate([1, 2, 3, *first.tokens, 9], CONFIG)
    assert longer.reused_tokens == 3 + 4
    other = session.generate([1, 2, 8], CONFIG)
    assert other.reused_tokens == 0
    assert other.tokens == generate(model, [[1, 2, 8]], CONFIG)[0].tokens
