"""Optimizers by name, and which parameters they decay.

Weight decay acts on matrices only, never on biases, norms and embeddings. A parameter tagged `skip_weight_decay =
True` is not decayed; one tagged `freeze = True`, or matched by `train.freeze`, is not trained.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lmplay.train.config import TrainConfig
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean

Parameters = list[tuple[str, nn.Parameter]]


def apply_freezing(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Set `requires_grad` from the tags and `patterns` (`blocks.0.*`, a whole name, or a prefix); returns the frozen
    names.
    """
    check_freezing(patterns, [name for name, _ in model.named_parameters()])
    frozen = []
    for name, parameter in model.named_parameters():
        if not hasattr(parameter, "frozen_by_model"):
            # The model's own choice, remembered: a later stage may free what an earlier one froze, but not this.
            parameter.frozen_by_model = not parameter.requires_grad  # type: ignore[attr-defined]
        by_model = parameter.frozen_by_model or getattr(parameter, "freeze", False)  # type: ignore[attr-defined]
        if by_model or any(_matches(name, pattern) for pattern in patterns):
            frozen.append(name)
        if parameter.is_floating_point():
            parameter.requires_grad_(name not in frozen)
    return frozen


def check_freezing(patterns: Sequence[str], names: Sequence[str]) -> None:
    """`WrongUsageError` for a pattern that is the name of no parameter."""
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            raise WrongUsageError(f"train.freeze: no parameter matches {pattern!r}{did_you_mean(pattern, names)}")


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def parameter_groups(model: nn.Module) -> tuple[Parameters, Parameters]:
    """(decayed, not decayed): every trainable parameter exactly once, shared ones under their first name."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    decayed: Parameters = []
    kept: Parameters = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        # A learned position table is an embedding too, though it is a bare parameter of shape (1, T, D).
        is_matrix = parameter.ndim >= 2 and 1 not in parameter.shape[:1]
        skip = getattr(parameter, "skip_weight_decay", False) or id(parameter) in embeddings or not is_matrix
        (kept if skip else decayed).append((name, parameter))
    return decayed, kept


def build_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> Optimizer:
    """The optimizer of `config` over the model's trainable parameters, decayed and undecayed ones in groups of their
    own.
    """
    decayed, kept = parameter_groups(model)
    if not decayed and not kept:
        raise WrongUsageError("no parameter is left to train: train.freeze or the model's own tags cover all of them")
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay, "decayed": True},
        {"params": kept, "weight_decay": 0.0, "decayed": False},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "muon":
        groups = _with_hidden_matrices_apart(model, groups)
    return OPTIMIZERS[config.optimizer](groups, config, device)


def _with_hidden_matrices_apart(model: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same groups, with the matrices between embedding and head in one of their own: what Muon is meant for."""
    head = getattr(model, "output_projection", None)  # a model that computes its logits otherwise has none
    outer = {id(parameter) for parameter in head.parameters()} if isinstance(head, nn.Module) else set()

    def is_hidden(parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and id(parameter) not in outer

    apart: list[dict[str, Any]] = []
    for group in groups:
        for hidden in (True, False):
            chosen = [entry for entry in group["params"] if (group["decayed"] and is_hidden(entry[1])) == hidden]
            apart.append({**group, "params": chosen, "hidden_matrices": hidden})
    return [group for group in apart if group["params"]]


def set_hyperparameters(optimizer: Optimizer, config: TrainConfig) -> None:
    """Give an optimizer that goes on, into another stage or with changed settings, what it reads from its groups beside
    the rate, which is set at each step.
    """
    for group in optimizer.param_groups:
        group["weight_decay"] = config.weight_decay if group.get("decayed", True) else 0.0
        if group.get("hidden_matrices"):
            continue  # Muon's momentum and its epsilon are its own
        named = {"betas": (config.beta1, config.beta2), "eps": config.eps, "momentum": config.beta1}
        named["alpha"] = config.beta2  # rmsprop's name for it
        group.update({name: value for name, value in named.items() if name in group})


class MuonWithAdamW(Optimizer):
    """`torch.optim.Muon` on the matrices inside the model, AdamW on embeddings, head, norms and biases.

    Muon (Jordan et al. 2024) is meant for hidden matrices only; its rate is matched to the root-mean-square of AdamW's
    update (Moonlight, Liu et al. 2025, section 2.2), so that one learning rate serves both.
    """

    def __init__(self, groups: list[dict[str, Any]], config: TrainConfig, device: torch.device) -> None:
        hidden = [group for group in groups if group["hidden_matrices"]]
        rest = [group for group in groups if not group["hidden_matrices"]]
        if not hidden:
            raise WrongUsageError("train.optimizer=muon: the model has no hidden matrices to train; use adamw")
        muon = torch.optim.Muon(hidden, lr=config.lr, momentum=0.95, adjust_lr_fn="match_rms_adamw")
        self.parts: list[Optimizer] = [muon]
        if rest:
            self.parts.append(_adamw(rest, config, device))
        # The base class keeps no state of its own: groups are the parts' own dicts, so that a new rate reaches them.
        super().__init__(muon.param_groups, {"lr": config.lr})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the trainer computes gradients itself"
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def _adamw(groups: Iterable[dict[str, Any]], config: TrainConfig, device: torch.device) -> Optimizer:
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=_fused(device))


def _adam(groups: Iterable[dict[str, Any]], config: TrainConfig, device: torch.device) -> Optimizer:
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(groups, lr=config.lr, betas=betas, eps=config.eps, fused=_fused(device))


def _adagrad(groups: Iterable[dict[str, Any]], config: TrainConfig, device: torch.device) -> Optimizer:
    return torch.optim.Adagrad(groups, lr=config.lr, eps=config.eps, fused=device.type == "cpu")


def _sgd(groups: Iterable[dict[str, Any]], config: TrainConfig, device: torch.device) -> Optimizer:
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.beta1, fused=_fused(device))


def _rmsprop(groups: Iterable[dict[str, Any]], config: TrainConfig, device: torch.device) -> Optimizer:  # noqa: ARG001
    return torch.optim.RMSprop(groups, lr=config.lr, alpha=config.beta2, eps=config.eps, momentum=config.beta1)


def _fused(device: torch.device) -> bool:
    return device.type in {"cpu", "cuda"}


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], TrainConfig, torch.device], Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "adagrad": _adagrad,
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "muon": MuonWithAdamW,
}
