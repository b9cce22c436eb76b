"""`LMRunnerBase`: what lmplay asks of a runner, the object between a registered name and its model.

Most experiments use `BasicModelRunner` (runners.py). Subclass this one when a model needs to be put together in another
way. Nothing here imports torch.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmplay.base.settings import checked_settings

if TYPE_CHECKING:
    from lmplay.base.base_model import LMBase


class LMRunnerBase(ABC):
    """Knows the legal settings of one experiment and builds its model. Made anew for each use by its factory."""

    name: str = ""
    description: str = ""
    overrides: Mapping[str, Any]
    """Model settings of this version; they beat the constructor's defaults, and what a person types beats them."""
    train_preset: Mapping[str, Any]
    """Training settings that this version wants, by their names without `train.`, as {"lr": 1e-3}."""

    def __init__(self, overrides: Mapping[str, Any] | None = None, train: Mapping[str, Any] | None = None) -> None:
        self.overrides = dict(overrides or {})
        self.train_preset = dict(train or {})

    @property
    @abstractmethod
    def model_class(self) -> type[LMBase]:
        """The class of the model."""

    @abstractmethod
    def model_parameters(self) -> Mapping[str, inspect.Parameter]:
        """The settings that the model takes (`model.*` on the command line), with this version's defaults."""

    @abstractmethod
    def build_model(self, **typed: Any) -> LMBase:
        """A new model. `typed` settings beat the version's own; an unknown one is a `WrongUsageError`."""

    def checked(self, typed: Mapping[str, Any]) -> dict[str, Any]:
        """`typed` as the model gets it. Raises `WrongUsageError` for an unknown setting or a value of another kind."""
        return checked_settings(typed, self.model_parameters(), of=self.name or self.model_class.__name__)
