"""A recorded step gives the plain step's very bits; a model whose steps aren't all alike takes the plain way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lmplay.base.base_model import LMBase
from lmplay.generate import SamplingConfig, generate
from lmplay.generate.context import Context
from lmplay.generate.recorded import RecordedStep
from lmplay.generate.session import Session
from lmplay.generate.weights import prepare_for_inference


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_recorded_steps_equal_plain_ones_bit_for_bit_with_padding_and_past_a_slide(
    make_model: Callable[..., LMBase], weights: str
) -> None:
    model = make_model()
    prepare_for_inference(model, weights)
    recorded, plain = Context(model, 2, recorded=True), Context(model, 2)
    rows = [[1, 2, 3], [4, 5, 6, 7, 8]]
    steps: list[object] = []
    with torch.no_grad():
        for _ in range(70):
            expected = plain.feed(rows)
            assert torch.equal(recorded.feed(rows), expected)
            steps.append(recorded._step)
            rows = [[token] for token in expected.argmax(dim=-1).tolist()]
    assert recorded.not_recorded is None
    assert recorded.slides == 1
    assert steps[:1] == [None]  # the prompt
    assert isinstance(steps[2], RecordedStep)
    assert len(set(map(id, steps[1:]))) == 1  # recorded once, as the cache stays where it is


def test_a_session_records_once_for_all_its_turns(model: LMBase) -> None:
    session = Session(model, recorded=True)
    session.warm_up()
    step = session._context._step
    config = SamplingConfig(temperature=0, max_tokens=4)
    for prompt in ([1, 2, 3], [1, 2, 9], [7]):
        assert session.generate(prompt, config).tokens == generate(model, [prompt], config)[0].tokens
    assert isinstance(step, RecordedStep)
    assert session._context._step is step


def test_a_text_that_is_long_enough_is_made_by_recorded_steps_and_stays_the_same(
    model: LMBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SamplingConfig(seed=3, max_tokens=40)
    plain = generate(model, [[1, 2]], config)[0].tokens
    made: list[int] = []
    call = RecordedStep.__call__

    def counted(step: RecordedStep, tokens: torch.Tensor, position: int) -> torch.Tensor:
        made.append(position)
        return call(step, tokens, position)

    monkeypatch.setattr("lmplay.generate.engine.RECORDING_PAYS", 40)
    monkeypatch.setattr(RecordedStep, "__call__", counted)
    assert generate(model, [[1, 2]], config)[0].tokens == plain
    assert len(made) > 30


class Around(LMBase):
    """A model of the same steps, with something of its own before them."""

    def __init__(self, inner: LMBase) -> None:
        super().__init__("around", max_len=inner.max_len)
        self.inner = inner
        self.made = 0

    def forward(self, x: torch.Tensor, cache: Any = None) -> Any:
        return self.inner(self.before(x, cache), cache)

    def before(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        return x


class LooksByList(Around):
    def before(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        return x if x.tolist()[0][0] % 2 else x + 1


class LooksByNumber(Around):
    def before(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        return x if x[0, 0] < 1000 else x - 1


class LooksForPlaces(Around):
    def before(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        x = x.clone()
        x[x > 1000] = 5
        return x.index_fill(1, (x[0] > 900).nonzero()[:, 0], 3)


class DrawsNumbers(Around):
    def before(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        return x + (torch.rand(1) < 0.0).long()


class CountsItsSteps(Around):
    def before(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        self.made += 1
        return x + self.made % 3


class KeepsAState(Around):
    state = torch.zeros(1, 1, dtype=torch.long)

    def before(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        self.state = (self.state + x[:, -1:]) % 7
        return (x + self.state) % 50000


class EverySecondPosition(Around):
    def before(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        length = cache[0].length if cache else 0
        return x + 1 if length % 2 else x


class WindowCutByPython(Around):
    """Begins at a number that stands still until there are 20 positions, and then grows."""

    def before(self, x: torch.Tensor, cache: Any) -> torch.Tensor:
        return x + max(0, (cache[0].length if cache else 0) - 20)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (LooksByList, "looks into a tensor"),
        (LooksByNumber, "for each token"),
        (LooksForPlaces, "for each token"),
        (DrawsNumbers, "random"),
        (CountsItsSteps, "depends on the position"),
        (KeepsAState, "state of its own"),
        (EverySecondPosition, "from token to token"),
        (WindowCutByPython, "otherwise than by growing"),
    ],
)
def test_a_model_whose_steps_are_not_alike_is_not_recorded(model: LMBase, kind: type[Around], reason: str) -> None:
    around = kind(model).eval()
    context = Context(around, recorded=True)
    with torch.no_grad():
        context.feed([[1, 2, 3]])
        context.feed([[4]])
    assert context._step is None
    assert context.not_recorded is not None
    assert reason in context.not_recorded


def test_recording_leaves_the_cache_and_the_random_generator_as_they_were(model: LMBase) -> None:
    recorded, plain = Context(model, recorded=True), Context(model)
    before = torch.get_rng_state()
    with torch.no_grad():
        for tokens in ([1, 2, 3], [4]):
            assert torch.equal(recorded.feed([tokens]), plain.feed([tokens]))
    assert recorded._step is not None
    assert torch.equal(torch.get_rng_state(), before)
    for ours, theirs in zip(recorded._cache, plain._cache, strict=True):
        assert ours.length == theirs.length == 4
        assert torch.equal(ours.keys[:, :, :4], theirs.keys[:, :, :4])
        assert torch.equal(ours.values[:, :, :4], theirs.values[:, :, :4])
