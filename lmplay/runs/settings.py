"""The settings of a run under dotted keys, out of its `run.json`: what filters, diffs and comparisons look at."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

# What can make two runs differ although their settings are the same.
CIRCUMSTANCES = ("git", "code", "versions", "host", "platform", "user", "folder", "command", "created")


class Settings(Mapping[str, Any]):
    """Settings by name, kept small: ten thousand runs share the names, each keeps its values only."""

    __slots__ = ("_places", "_values")

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._places = _places(tuple(settings))
        self._values = tuple(sys.intern(value) if isinstance(value, str) else value for value in settings.values())

    def __getitem__(self, name: str) -> Any:
        return self._values[self._places[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Settings({dict(self)!r})"


@lru_cache(maxsize=256)
def _places(names: tuple[str, ...]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def flat_config(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run under dotted keys: `model.num_blocks`, `data.packing`, `train.lr`.

    A training setting that differs between stages appears as `<stage>.train.<key>` for each, one that doesn't once.
    """
    config = asked.get("config")
    if not isinstance(config, Mapping):
        return {}
    flat = dict(flatten({key: value for key, value in config.items() if key != "stages"}))
    # What was typed beats every stage's own settings; a change made while the run was going is recorded there.
    typed = _mapping(_mapping(asked.get("request")).get("train"))
    stages = config.get("stages")
    by_stage = [
        (str(stage.get("name")), dict(flatten({**_mapping(stage.get("train")), **typed}, "train")))
        for stage in (stages if isinstance(stages, list | tuple) else ())
        if isinstance(stage, Mapping)
    ]
    if len(by_stage) == 1:
        return flat | by_stage[0][1]
    for key in dict.fromkeys(key for _, settings in by_stage for key in settings):
        values = [settings.get(key) for _, settings in by_stage]
        if all(value == values[0] for value in values):
            flat[key] = values[0]
        else:
            flat.update({f"{name}.{key}": settings.get(key) for name, settings in by_stage})
    return flat


def _mapping(value: Any) -> Mapping[str, Any]:
    """`value`, or an empty one where somebody else's `run.json` has something else there."""
    return value if isinstance(value, Mapping) else {}


def all_settings(asked: Mapping[str, Any], *, everything: bool = False) -> dict[str, Any]:
    """What decides how a run goes: experiment, plan with its datasets and budgets, seed, limits, and `flat_config`.

    With `everything` also the circumstances it was started in: code, versions, machine, command line.
    """
    plan, request = asked.get("plan"), asked.get("request")
    request = request if isinstance(request, Mapping) else {}
    settings: dict[str, Any] = {
        "experiment": asked.get("experiment"),
        "plan": plan_name(asked),
        "seed": asked.get("seed"),
    }
    settings |= {key: request[key] for key in ("device", "initial_model") if key in request}
    settings |= dict(flatten(request.get("limits") or {}, "limits"))
    settings |= flat_config(asked)
    content = plan.get("content") if isinstance(plan, Mapping) else None
    if isinstance(content, Mapping):
        kept = {key: value for key, value in content.items() if key not in ("description", "stages")}
        settings |= dict(flatten(kept, "plan"))
        for stage in content.get("stages") or ():
            named = f"plan.{stage.get('name')}"
            # The stage's own training settings are part of the config above, under the rules of who beats whom.
            budget = {key: value for key, value in stage.items() if key not in ("name", "train")}
            settings |= dict(flatten(budget, named))
    if everything:
        for key in CIRCUMSTANCES:
            settings |= dict(flatten(asked.get(key), key))
    return settings


def steered(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `lmplay ctl set` changed in the request since it was typed, with the values that hold now."""
    now, typed = dict(flatten(asked.get("request"))), dict(flatten(asked.get("typed_request", asked.get("request"))))
    return {key: value for key, value in now.items() if typed.get(key) != value}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys that have not the same value in both, in the order of the first."""
    return [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]


def plan_name(asked: Mapping[str, Any]) -> str:
    plan = asked.get("plan")
    return str(plan.get("name", "")) if isinstance(plan, Mapping) else str(plan or "")


def flatten(content: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested objects as (dotted key, value); lists are values."""
    if not isinstance(content, Mapping):
        yield prefix, content
        return
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from flatten(value, name)
        else:
            yield name, value
