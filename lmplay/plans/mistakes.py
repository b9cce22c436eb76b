"""What is wrong with a plan, in one line: the place inside the file, what is needed there, the nearest known name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lmplay.plans.spec import DatasetSpec, Fields, Plan, Stage, Validation
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean

_NEEDED = {
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "a text",
    "float_type": "a number",
    "int_type": "a whole number",
    "finite_number": "a finite number",
}


KnownKeys = Callable[[tuple[str | int, ...]], list[str]]


def refuse(label: str, place: str, message: str) -> NoReturn:
    """Raise the error of a plan; `place` is where in the file, and may be empty."""
    raise WrongUsageError(f"{label}: {place}: {message}" if place else f"{label}: {message}")


def first_mistake(error: ValidationError, known_keys: KnownKeys | None = None) -> tuple[str, str]:
    """Place inside the file, as in `stages[1].datasets.wiki`, and what is wrong there.

    `known_keys` tells which keys an object at a place may have; a plan's own unless given.
    """
    first = error.errors(include_url=False)[0]
    place = ""
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    message = _message(first, known_keys or _keys_at)
    if first["type"] == "value_error":
        inner, separator, rest = message.partition(": ")
        if separator and " " not in inner:  # a validator named the key below its own object
            place, message = f"{place}.{inner}" if place else inner, rest
    return place, message


def _message(error: ErrorDetails, known_keys: KnownKeys) -> str:
    kind, given = error["type"], shown(error["input"])
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(error['loc'][-1]), known_keys(error['loc'][:-1]))}"
    if kind == "missing":
        return "this key is missing"
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if kind in ("too_short", "string_too_short"):
        return "it is empty"
    if kind in _NEEDED:
        return f"{_NEEDED[kind]} is needed, and this is {given}"
    known = re.findall(r"'([^']+)'", str(error.get("ctx", {}).get("expected", "")))
    if kind == "literal_error" and known:
        hint = did_you_mean(str(error["input"]), known) or f"; known are {', '.join(known)}"
        return f"{given} is not known{hint}"
    return f"{error['msg'].replace('Input should be', 'it must be')}, and this is {given}"


def shown(value: Any) -> str:
    """A value as the file writes it, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(location: tuple[str | int, ...]) -> list[str]:
    """The keys that an object at this place may have."""
    names = [part for part in location if isinstance(part, str)]
    model: type[BaseModel] = Plan
    if names[:1] == ["stages"]:
        model = Stage
    elif names[:1] == ["datasets"]:
        inner: Mapping[str, type[BaseModel]] = {"fields": Fields, "validation": Validation}
        model = inner.get(names[-1], DatasetSpec)
    return [name for name, field in model.model_fields.items() if not field.exclude]
