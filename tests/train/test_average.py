"""The moving average of the weights, held against its closed form."""

from __future__ import annotations

import torch
from torch import nn

from lmplay.train.update.average import WeightAverage


def test_it_is_the_recursion_with_a_decay_that_rises() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.8)
    expected = model.weight.detach().clone()
    for update in range(1, 60):
        with torch.no_grad():
            model.weight.add_(torch.full_like(model.weight, 0.1))
        average.update(update)
        decay = min(0.8, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.state_dict()["weight"], expected)
    # Weights that rise by 0.1 an update leave their average 0.1 * decay / (1 - decay) behind.
    lag = model.weight.detach() - average.state_dict()["weight"]
    torch.testing.assert_close(lag, torch.full_like(lag, 0.4), rtol=0.02, atol=0)


def test_in_place_swaps_and_gives_back_the_very_same_bits_also_after_an_error() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        model.weight.normal_()
    before = model.weight.detach().clone()
    try:
        with average.in_place():
            assert torch.equal(model.weight, average.state_dict()["weight"])
            raise ZeroDivisionError
    except ZeroDivisionError:
        assert torch.equal(model.weight, before)


def test_a_shared_parameter_is_averaged_under_each_of_its_names() -> None:
    model = nn.Module()
    model.embed, model.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    model.head.weight = model.embed.weight
    model.register_buffer("table", torch.arange(3.0))
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        model.embed.weight.zero_()
    weights = {name: average.of(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    assert torch.equal(weights["embed.weight"], weights["head.weight"])
    assert weights["embed.weight"].abs().sum() > 0
    assert torch.equal(weights["table"], torch.arange(3.0))
