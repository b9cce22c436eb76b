"""What a person may set of a model, and to what. Called by runners, for each setting that reaches a model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean

# The kind of a default -> the kinds of value that may take its place, and their name for people.
KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    list: ((list, tuple), "a list"),
    tuple: ((list, tuple), "a list"),
}
# Whole numbers that count or measure something, by the names that the field has for them.
_SIZES = re.compile(r"num_\w+|\w+_dim|max_len")


def check_names(names: Iterable[str], parameters: Mapping[str, inspect.Parameter], *, of: str) -> None:
    """Raise `WrongUsageError` for a setting that the model of `of` doesn't take; it names the nearest one."""
    for name in names:
        _parameter(name, parameters, of)


def checked_settings(
    settings: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], *, of: str
) -> dict[str, Any]:
    """Settings that the model of `of` takes, each of the kind that its default is; whole numbers become floats there.

    A model's `**ignore` swallows unknown keys, and no loop minds a count of -1, so without this a typo would train the
    wrong model in silence. Raises `WrongUsageError`, which names the nearest key.
    """
    return {name: _like_default(name, value, _parameter(name, parameters, of)) for name, value in settings.items()}


def _parameter(name: str, parameters: Mapping[str, inspect.Parameter], of: str) -> inspect.Parameter:
    if name not in parameters:
        hint = did_you_mean(name, [f"model.{key}" for key in parameters])
        hint = hint or f"; it takes {', '.join(parameters) or 'none'}"
        raise WrongUsageError(f"unknown key model.{name}: {of} takes no such argument{hint}")
    return parameters[name]


def _like_default(name: str, value: Any, parameter: inspect.Parameter) -> Any:
    kind = type(parameter.default)
    if kind is int and _SIZES.fullmatch(name):
        least = min(1, parameter.default)  # none at all is meant only where that is the default
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise WrongUsageError(f"model.{name} must be a whole number from {least} on, not {value!r}")
        return value
    if kind not in KINDS or value is None:
        return value
    accepted, wanted = KINDS[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise WrongUsageError(f"model.{name} must be {wanted}, as its default {parameter.default!r} is, not {value!r}")
    return float(value) if isinstance(value, int) and kind is float else value
