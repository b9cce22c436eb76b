"""Runners and the base model: which settings count, and what rebuilds a model."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from lmplay.base.base_model import BasicModelRunner, LMBase
from lmplay.base.runner_list import get_runner
from lmplay.base.runners import BasicModelRunner as SameRunner
from lmplay.exp.gpt2ish.model import GPT2
from lmplay.utils import to_name
from lmplay.utils.errors import LMPlayError, WrongUsageError


class Forgetful(LMBase):
    """Hands only some of its arguments to the base class, as people do."""

    def __init__(
        self, max_len: int = 32, width: int = 4, scale: float = 1.0, gated: bool = False, **ignore: Any
    ) -> None:
        super().__init__(to_name("forgetful", max_len=max_len), max_len=max_len, note="kept")
        self.fc = nn.Linear(width, width)


class Child(GPT2):
    """Adds an argument and hands the others on."""

    def __init__(self, weight: float = 0.1, **kwargs: Any) -> None:
        super().__init__(num_blocks=1, **kwargs)
        self.weight = weight


def test_typed_settings_beat_the_versions_own_and_those_the_defaults() -> None:
    runner = BasicModelRunner(Forgetful, overrides={"width": 6, "scale": 2.0}, scale=3.0)
    assert runner.model_parameters()["width"].default == 6
    assert runner.model_parameters()["scale"].default == 3.0
    model = runner.build_model(scale=4, gated=True)
    assert model.init_kwargs == {"max_len": 32, "width": 6, "scale": 4.0, "gated": True, "note": "kept"}
    assert get_runner("test_runner", num_blocks=1).build_model().init_kwargs["num_blocks"] == 1
    assert SameRunner is BasicModelRunner


def test_a_runner_knows_its_name_and_its_training_preset() -> None:
    runner = get_runner("test_runner")
    assert (runner.name, runner.model_class, dict(runner.train_preset)) == ("test_runner", GPT2, {})
    assert BasicModelRunner(Forgetful, train={"lr": 1e-3}).train_preset == {"lr": 1e-3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widht": 3}, "unknown key model.widht: Forgetful takes no such argument; did you mean model.width"),
        ({"zzz": 3}, "it takes max_len, width, scale, gated"),
        ({"width": "wide"}, "model.width must be a whole number, as its default 4 is, not 'wide'"),
        ({"width": 2.5}, "model.width must be a whole number"),
        ({"width": True}, "model.width must be a whole number"),
        ({"gated": 1}, "model.gated must be true or false"),
        ({"scale": "big"}, "model.scale must be a number"),
        ({"max_len": 0}, "model.max_len must be a whole number from 1 on, not 0"),
        ({"max_len": None}, "model.max_len must be a whole number from 1 on, not None"),
    ],
)
def test_settings_that_cannot_be_meant_are_wrong_usage(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongUsageError, match=message):
        BasicModelRunner(Forgetful).build_model(**settings)
    with pytest.raises(WrongUsageError, match=message):
        BasicModelRunner(Forgetful, **settings)


@pytest.mark.parametrize("name", ["num_blocks", "num_heads", "embed_dim", "max_len"])
def test_there_is_no_model_with_less_than_one_of_what_it_consists_of(name: str) -> None:
    for too_few in (0, -1):
        with pytest.raises(WrongUsageError, match=rf"model.{name} must be a whole number from 1 on, not {too_few}"):
            get_runner("test_runner").checked({name: too_few})


def test_a_value_that_the_model_refuses_is_wrong_usage() -> None:
    with pytest.raises(WrongUsageError, match=r"embed_dim \(64\) must be a multiple of num_heads \(5\)"):
        get_runner("test_runner").build_model(num_heads=5)


def test_a_forgotten_import_is_named_with_the_line_to_add() -> None:
    class Hasty(LMBase):
        def __init__(self) -> None:
            exec("to_name('hasty')", {})

    with pytest.raises(LMPlayError, match=r"add `from lmplay.utils import to_name`"):
        BasicModelRunner(Hasty).build_model()


def test_init_kwargs_rebuild_a_model_that_forgot_to_pass_them_on() -> None:
    model = Forgetful(16, width=7)
    assert model.max_len == 16
    assert Forgetful(**model.init_kwargs).fc.weight.shape == (7, 7)


def test_a_subclass_offers_the_settings_that_it_hands_on() -> None:
    runner = BasicModelRunner(Child, overrides={"embed_dim": 8, "num_heads": 2, "max_len": 8})
    assert {"weight", "embed_dim", "attn_dropout"} <= runner.model_parameters().keys()
    with torch.device("meta"):
        model = runner.build_model(weight=0.5)
        assert Child(**model.init_kwargs).init_kwargs == model.init_kwargs
    assert len(model.blocks) == 1
    assert model.weight == 0.5


def test_models_are_copied_and_pickled() -> None:
    model = get_runner("test_runner").build_model(num_blocks=1, embed_dim=4, max_len=8).eval()
    tokens = torch.arange(8)[None]
    expected = model(tokens)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(tokens), expected)
        assert other.init_kwargs == model.init_kwargs
        assert other.tokenizer.n_vocab == other.vocab_size == 50257
