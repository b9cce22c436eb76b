"""The compiled step gives the plain step's logits; a model that can't be compiled takes the plain way and says why.

The captured program is run as it is: what the compiler makes of it is the compiler's, and takes a minute to make.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lmplay.base.base_model import LMBase
from lmplay.generate import SamplingConfig, generate
from lmplay.generate.context import Context
from lmplay.generate.session import Session
from lmplay.generate.weights import prepare_for_inference

BACKEND = "eager"


@pytest.mark.slow
def test_compiled_steps_equal_plain_ones_with_padding_and_past_a_slide(model: LMBase) -> None:
    compiled, plain = Context(model, 2, compiled=BACKEND), Context(model, 2)
    rows = [[1, 2, 3], [4, 5, 6, 7, 8]]
    steps: list[object] = []
    with torch.no_grad():
        for _ in range(70):
            expected = plain.feed(rows)
            torch.testing.assert_close(compiled.feed(rows), expected, rtol=1e-3, atol=1e-3)
            steps.append(compiled._step)
            rows = [[token] for token in expected.argmax(dim=-1).tolist()]
    assert compiled.not_compiled is None
    assert compiled.slides == 1
    assert steps[:1] == [None]  # the prompt
    assert len(set(map(id, steps[1:]))) == 1  # compiled once, as the cache stays where it is


@pytest.mark.slow
def test_a_session_compiles_once_for_all_its_turns(model: LMBase) -> None:
    session = Session(model, compiled=BACKEND)
    session.warm_up()
    step = session._context._step
    config = SamplingConfig(temperature=0, max_tokens=4)
    for prompt in ([1, 2, 3], [1, 2, 9], [7]):
        assert session.generate(prompt, config).tokens == generate(model, [prompt], config)[0].tokens
    assert session._context._step is step is not None


def test_a_model_that_counts_positions_by_itself_is_not_compiled_and_says_so(model: LMBase) -> None:
    class CountsItself(LMBase):
        def __init__(self) -> None:
            super().__init__("counts")
            self.inner, self.max_len = model, model.max_len

        def forward(self, x: torch.Tensor, cache: list[object]) -> object:
            if len(cache) and getattr(cache, "position", None) is not None:
                cache.position = torch.zeros_like(cache.position)  # as if it were always the first token
            return self.inner(x, cache)

    config = SamplingConfig(temperature=0, max_tokens=6)
    result = generate(CountsItself(), [[1, 2, 3]], config, compiled=BACKEND)[0]
    assert result.not_compiled is not None
    assert result.tokens == generate(model, [[1, 2, 3]], config)[0].tokens


def test_a_model_with_a_cache_of_its_own_kind_is_not_compiled_and_says_so(model: LMBase) -> None:
    class PlainList(LMBase):
        def __init__(self) -> None:
            super().__init__("plain")
            self.inner = model

        def forward(self, x: torch.Tensor, cache: list[torch.Tensor]) -> object:
            cache[:] = [torch.cat([*cache, x], dim=1)]
            return self.inner(cache[0])[:, -1:], cache

    result = generate(PlainList(), [[1, 2]], SamplingConfig(max_tokens=3), compiled=BACKEND)[0]
    assert result.not_compiled == "PlainList keeps a cache of its own kind"
    assert len(result.tokens) == 3


def test_a_model_with_packed_weights_is_not_compiled_and_says_so(make_model: Callable[..., LMBase]) -> None:
    packed = make_model()
    prepare_for_inference(packed, "int8")
    result = generate(packed, [[1, 2]], SamplingConfig(max_tokens=3), compiled=BACKEND)[0]
    assert result.not_compiled is not None
    assert "--weights float32 can be compiled" in result.not_compiled
    assert len(result.tokens) == 3
