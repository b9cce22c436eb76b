"""`BasicModelRunner`: a model class, the settings of one version of it, and what a person typed on top."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmplay.base.base_runner import LMRunnerBase
from lmplay.base.constructor import constructor_parameters
from lmplay.base.settings import check_names
from lmplay.utils.errors import LMPlayError, WrongUsageError

if TYPE_CHECKING:
    from lmplay.base.base_model import LMBase


class BasicModelRunner(LMRunnerBase):
    """Builds `model_class(**overrides, **kwargs, **typed)`, where the later beats the earlier.

    `train` presets training settings for this version, as `train={"lr": 1e-3}`.
    """

    def __init__(
        self,
        model_class: type[LMBase],
        *args: Any,
        overrides: Mapping[str, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if args:
            raise TypeError(f"the settings of a model are given by name; got {len(args)} without one")
        self._model_class = model_class
        super().__init__(overrides=overrides, train=train)
        # Of the overrides the names alone: a version may mean a kind of value that the constructor's default is not.
        check_names(self.overrides, constructor_parameters(model_class), of=model_class.__name__)
        self.overrides = {**self.overrides, **self.checked(kwargs)}

    @property
    def model_class(self) -> type[LMBase]:
        return self._model_class

    def model_parameters(self) -> Mapping[str, inspect.Parameter]:
        return {
            name: parameter.replace(default=self.overrides[name]) if name in self.overrides else parameter
            for name, parameter in constructor_parameters(self._model_class).items()
        }

    def build_model(self, **typed: Any) -> LMBase:
        settings = {**self.overrides, **self.checked(typed)}
        try:
            return self._model_class(**settings)
        except ValueError as error:
            raise WrongUsageError(f"{self._model_class.__name__} cannot be built: {error}") from error
        except NameError as error:
            if error.name not in ("to_name", "get_tokenizer"):
                raise
            raise LMPlayError(
                f"{self._model_class.__name__} uses {error.name} without importing it; "
                f"add `from lmplay.utils import {error.name}` to {self._model_class.__module__}"
            ) from error
