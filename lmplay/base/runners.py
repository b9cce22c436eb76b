"""`BasicModelRunner`: a model class, the settings of one version of it, and what a person typed on top."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmplay.base.base_runner import LMRunnerBase
from lmplay.base.constructor import constructor_parameters
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.names import did_you_mean

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
        self._check_names(self.overrides)
        self.overrides = {**self.overrides, **self._checked(kwargs)}

    @property
    def model_class(self) -> type[LMBase]:
        return self._model_class

    def model_parameters(self) -> Mapping[str, inspect.Parameter]:
        return {
            name: parameter.replace(default=self.overrides[name]) if name in self.overrides else parameter
            for name, parameter in constructor_parameters(self._model_class).items()
        }

    def build_model(self, **typed: Any) -> LMBase:
        settings = {**self.overrides, **self._checked(typed)}
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

    def _check_names(self, settings: Mapping[str, Any]) -> None:
        legal = constructor_parameters(self._model_class)
        for name in settings:
            if name not in legal:
                hint = did_you_mean(name, legal) or f"; it takes {', '.join(legal) or 'no settings'}"
                raise WrongUsageError(
                    f"the model of {self.name or self._model_class.__name__} has no setting {name!r}{hint}"
                )

    def _checked(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that the model takes, each a value of the kind that its default is."""
        self._check_names(settings)
        parameters = self.model_parameters()
        return {name: _like_default(name, value, parameters[name].default) for name, value in settings.items()}


def _like_default(name: str, value: Any, default: Any) -> Any:
    """`value`, a whole number made a float where the default is one. Raises `WrongUsageError` for another kind."""
    kinds: dict[type, tuple[tuple[type, ...], str]] = {
        bool: ((bool,), "true or false"),
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
        str: ((str,), "text"),
    }
    if type(default) not in kinds or value is None:
        return value
    accepted, wanted = kinds[type(default)]
    if not isinstance(value, accepted) or (isinstance(value, bool) and type(default) is not bool):
        raise WrongUsageError(f"model.{name} must be {wanted}, not {value!r}")
    return float(value) if isinstance(value, int) and type(default) is float else value
