"""Which parameters are trained and decayed, and that every rule in the table trains all of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lmplay.train.config import TrainConfig
from lmplay.train.update.optimizers import (
    OPTIMIZERS,
    apply_freezing,
    build_optimizer,
    parameter_groups,
    set_hyperparameters,
)
from lmplay.utils.errors import WrongUsageError

CPU = torch.device("cpu")


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tok_embed = nn.Embedding(11, 8)
        self.pos_embed = nn.Parameter(torch.randn(1, 5, 8))
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(2)])
        self.fc = nn.Linear(8, 11, bias=False)

    @property
    def output_projection(self) -> nn.Linear:
        return self.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.tok_embed(x) + self.pos_embed[:, : x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.fc(h)


def backward(model: nn.Module) -> None:
    torch.manual_seed(0)
    logits = model(torch.randint(0, 11, (3, 5)))
    nn.functional.cross_entropy(logits.flatten(0, 1), torch.randint(0, 11, (15,))).backward()


def test_only_matrices_are_decayed_and_every_parameter_is_in_one_group() -> None:
    model = Toy()
    model.blocks[1][0].weight.skip_weight_decay = True
    decayed, kept = parameter_groups(model)
    assert [name for name, _ in decayed] == ["blocks.0.0.weight", "fc.weight"]
    assert {name for name, _ in decayed} | {name for name, _ in kept} == {n for n, _ in model.named_parameters()}
    assert len(decayed) + len(kept) == len(list(model.parameters()))


def test_a_tied_head_is_an_embedding_and_not_decayed() -> None:
    model = Toy()
    model.fc.weight = model.tok_embed.weight
    decayed, kept = parameter_groups(model)
    assert [name for name, _ in decayed] == ["blocks.0.0.weight", "blocks.1.0.weight"]
    assert [name for name, _ in kept].count("tok_embed.weight") == 1


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_optimizer_changes_every_trainable_parameter(name: str, weight_decay: float) -> None:
    model = Toy()
    before = copy.deepcopy(model.state_dict())
    config = TrainConfig(optimizer=name, lr=1e-2, weight_decay=weight_decay)  # type: ignore[arg-type]
    optimizer = build_optimizer(model, config, CPU)
    backward(model)
    optimizer.step()
    unchanged = [key for key, value in model.state_dict().items() if torch.equal(value, before[key])]
    assert unchanged == []


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimizer_state_survives_a_round_trip_bit_by_bit(name: str) -> None:
    config = TrainConfig(optimizer=name, lr=1e-2)  # type: ignore[arg-type]
    torch.manual_seed(1)
    first = Toy()
    optimizer = build_optimizer(first, config, CPU)
    backward(first)
    optimizer.step()
    second = copy.deepcopy(first)
    other = build_optimizer(second, config, CPU)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, rule in ((first, optimizer), (second, other)):
        for group in rule.param_groups:
            group["lr"] = 3e-3
        rule.zero_grad()
        backward(model)
        rule.step()
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def plain_rules(name: str, model: Toy) -> list[torch.optim.Optimizer]:
    """torch's rules over `model`, neither fused nor grouped by hand-written code: matrices decay, the rest does not."""
    matrices = [*(block[0].weight for block in model.blocks), model.fc.weight]
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    one_by_one = {"foreach": False, "lr": 1e-2}
    adam = {"betas": (0.9, 0.95), "eps": 1e-8, **one_by_one}
    match name:
        case "adamw":
            return [torch.optim.AdamW(groups, **adam)]
        case "adam":
            return [torch.optim.Adam(groups, **adam)]
        case "adagrad":
            return [torch.optim.Adagrad(groups, eps=1e-8, **one_by_one)]
        case "sgd":
            return [torch.optim.SGD(groups, momentum=0.9, **one_by_one)]
        case "rmsprop":
            return [torch.optim.RMSprop(groups, alpha=0.95, eps=1e-8, momentum=0.9, **one_by_one)]
    assert name == "muon"
    hidden = [block[0].weight for block in model.blocks]
    outer = [{"params": [model.fc.weight], "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    muon = torch.optim.Muon(hidden, lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(outer, **adam)]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_rule_is_torchs_own_with_decay_on_matrices_only(name: str) -> None:
    config = TrainConfig(optimizer=name, lr=1e-2, weight_decay=0.1)  # type: ignore[arg-type]
    torch.manual_seed(1)
    model = Toy()
    plain = copy.deepcopy(model)
    ours, theirs = build_optimizer(model, config, CPU), plain_rules(name, plain)
    for _ in range(3):
        for each, rules in ((model, [ours]), (plain, theirs)):
            each.zero_grad()
            backward(each)
            for rule in rules:
                rule.step()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[key], rtol=1e-5, atol=1e-7)


def test_freezing_by_pattern_by_prefix_and_by_tag() -> None:
    model = Toy()
    model.pos_embed.freeze = True
    model.fc.weight.requires_grad = False
    frozen = apply_freezing(model, ["tok_embed.*", "blocks.0"])
    assert frozen == [
        "pos_embed",
        "tok_embed.weight",
        "blocks.0.0.weight",
        "blocks.0.0.bias",
        "blocks.0.1.weight",
        "blocks.0.1.bias",
        "fc.weight",
    ]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == frozen
    assert apply_freezing(model, []) == ["pos_embed", "fc.weight"]
    with pytest.raises(WrongUsageError, match=r"no parameter matches 'tok_embd'"):
        apply_freezing(model, ["tok_embd"])
    apply_freezing(model, ["*"])
    with pytest.raises(WrongUsageError, match="no parameter is left"):
        build_optimizer(model, TrainConfig(), CPU)


def test_a_new_stage_changes_the_decay_of_decayed_groups_only() -> None:
    optimizer = build_optimizer(Toy(), TrainConfig(weight_decay=0.1), CPU)
    set_hyperparameters(optimizer, TrainConfig(weight_decay=0.3, beta2=0.99))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.99)] * 2
