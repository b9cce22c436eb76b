"""The settings of a run under dotted keys, out of its `run.json`: what filters, diffs and comparisons look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# What can make two runs differ although their settings are the same.
CIRCUMSTANCES = ("git", "code", "versions", "host", "platform", "user", "folder", "command", "created")


def flat_config(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run under dotted keys: `model.num_blocks`, `data.packing`, `train.lr`.

    A training setting that differs between stages appears as `<stage>.train.<key>` for each, one that doesn't once.
    """
    config = asked.get("config")
    if not isinstance(config, Mapping):
        return {}
    flat = dict(flatten({key: value for key, value in config.items() if key != "stages"}))
    request = asked.get("request")
    # What was typed beats every stage's own settings; a change made while the run was going is recorded there.
    typed = request.get("train") or {} if isinstance(request, Mapping) else {}
    stages = [stage for stage in config.get("stages") or () if isinstance(stage, Mapping)]
    by_stage = [
        (str(stage.get("name")), dict(flatten({**stage.get("train", {}), **typed}, "train"))) for stage in stages
    ]
    for key in dict.fromkeys(key for _, settings in by_stage for key in settings):
        values = [settings.get(key) for _, settings in by_stage]
        if all(value == values[0] for value in values):
            flat[key] = values[0]
        else:
            flat.update({f"{name}.{key}": settings.get(key) for name, settings in by_stage})
    return flat


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
        yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
