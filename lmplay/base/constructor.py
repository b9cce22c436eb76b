"""What a model's constructor takes, and what it was given.

Used by runners (which settings are legal), and by `LMBase` (which arguments rebuild this model).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

SWALLOWING = ("ignore", "ignored", "_")


def constructor_parameters(model_class: type) -> dict[str, inspect.Parameter]:
    """The keyword arguments that `model_class(...)` makes use of, by name.

    `**ignore` swallows what the model does not know, so it adds nothing. `**kwargs`, under any other name, is taken to
    be handed to the next constructor up the line of base classes, so that one's arguments count too.
    """
    found: dict[str, inspect.Parameter] = {}
    for owner in model_class.__mro__:
        if "__init__" not in vars(owner):
            continue
        if owner.__module__.startswith(("lmplay.base.", "torch.")) or owner is object:
            break
        parameters = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if not any(
            parameter.kind is parameter.VAR_KEYWORD and parameter.name not in SWALLOWING for parameter in parameters
        ):
            break
    return found


def given_arguments(model: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the call `type(model)(*args, **kwargs)` by name, defaults filled in, swallowed ones left out."""
    signature = inspect.signature(type(model).__init__)
    try:
        bound = signature.bind_partial(model, *args, **kwargs)
    except TypeError:
        return {}  # the constructor itself is about to raise it, with the better message
    bound.apply_defaults()
    result: dict[str, Any] = {}
    for index, (name, parameter) in enumerate(signature.parameters.items()):
        if index == 0 or parameter.kind is parameter.VAR_POSITIONAL or name not in bound.arguments:
            continue
        if parameter.kind is not parameter.VAR_KEYWORD:
            result[name] = bound.arguments[name]
        elif name not in SWALLOWING:
            result.update(bound.arguments[name])
    return result


def swallows_unknown(model_class: type) -> bool:
    """True for a constructor that ends in `**ignore`."""
    parameters = inspect.signature(model_class.__init__).parameters.values()  # type: ignore[misc]
    return any(parameter.kind is parameter.VAR_KEYWORD and parameter.name in SWALLOWING for parameter in parameters)
