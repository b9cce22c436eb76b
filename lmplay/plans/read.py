"""Finding and reading plan files, in either form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

import lmplay
from lmplay.plans.known import KNOWN_DATASETS
from lmplay.plans.mistakes import first_mistake, refuse, shown
from lmplay.plans.spec import MAX_EPOCHS, Plan
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean


def plans_folder() -> Path:
    """Where the ready plans are: inside an installed wheel, or beside the package in a checkout."""
    package = Path(lmplay.__file__).parent
    installed = package / "_plans"
    return installed if installed.is_dir() else package.parent / "plans"


def list_plans() -> list[str]:
    """Names of the ready plans, sorted."""
    return sorted(path.stem for path in plans_folder().glob("*.json"))


def load_plan(name_or_path: str | Path) -> Plan:
    """The plan of that name, or in that file. `WrongUsageError` names the place inside the file that is wrong."""
    path = _find(name_or_path)
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WrongUsageError(f"{path}: the plan can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise WrongUsageError(f"{path}: the plan is not UTF-8 text (byte {error.start})") from error
    try:
        parsed = json.loads(content, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise WrongUsageError(f"{path}: not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except (_BadJSONError, ValueError) as error:  # a number of thousands of digits is a ValueError
        raise WrongUsageError(f"{path}: {error}") from error
    except RecursionError as error:
        raise WrongUsageError(f"{path}: not a plan: it is nested too deeply") from error
    return parse_plan(parsed, name=path.stem, folder=path.parent.absolute(), label=str(path))


def parse_plan(parsed: Any, *, name: str, folder: Path, label: str | None = None) -> Plan:
    """The plan of a parsed JSON value, in either form. `label` starts each error message; the name, unless given."""
    label = label or name
    if not isinstance(parsed, dict):
        refuse(label, "", "a plan is a JSON object")
    full = _from_short_form(parsed, label) if _is_short_form(parsed) else dict(parsed)
    for taken in ("name", "folder", "label"):
        if taken in full:
            refuse(label, taken, "unknown key; a plan is named by its file")
    if isinstance(full.get("datasets"), dict):
        full["datasets"] = _resolve_likeness(full["datasets"], label)
    try:
        plan = Plan.model_validate({**full, "name": name, "folder": folder, "label": label})
    except ValidationError as error:
        refuse(label, *first_mistake(error))
    seen: set[str] = set()
    for index, stage in enumerate(plan.stages):
        if stage.name in seen:
            refuse(label, f"stages[{index}].name", f"another stage is called {stage.name!r} already")
        seen.add(stage.name)
        for dataset in stage.datasets:
            if dataset not in plan.datasets:
                hint = did_you_mean(dataset, plan.datasets) or "; declare it under `datasets`"
                refuse(label, f"stages[{index}].datasets.{dataset}", f"there is no dataset of this name{hint}")
    return plan


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    text = str(name_or_path)
    ready = plans_folder() / f"{text}.json"
    if isinstance(name_or_path, str) and path.name == text and ready.is_file():
        return ready
    if path.name != text or path.suffix == ".json":
        raise WrongUsageError(f"there is no plan file {path}{did_you_mean(path.stem, list_plans())}")
    known = list_plans()
    hint = did_you_mean(text, known) or f"; known are {', '.join(known)}, or give the path of a file"
    raise WrongUsageError(f"there is no plan {text!r}{hint}")


def _is_short_form(parsed: Mapping[str, Any]) -> bool:
    return not {"version", "stages", "datasets"} & parsed.keys()


def _from_short_form(parsed: Mapping[str, Any], label: str) -> dict[str, Any]:
    """`{stage: {"dataset", "epochs"}}` as the full form; `dataset` is one of `KNOWN_DATASETS`."""
    if not parsed:
        refuse(label, "", "the plan has no stages")
    datasets: dict[str, Any] = {}
    stages = []
    for name, entry in parsed.items():
        if not isinstance(entry, dict):
            refuse(label, name, 'a stage is an object, {"dataset": ..., "epochs": ...}')
        for key in entry:
            if key not in ("dataset", "epochs"):
                refuse(label, f"{name}.{key}", f"unknown key{did_you_mean(key, ('dataset', 'epochs'))}")
        for key in ("dataset", "epochs"):
            if key not in entry:
                refuse(label, name, f"the stage has no `{key}`")
        dataset = entry["dataset"]
        if not isinstance(dataset, str):
            refuse(label, f"{name}.dataset", f"a name is needed, and this is {shown(dataset)}")
        if dataset not in KNOWN_DATASETS:
            hint = did_you_mean(dataset, KNOWN_DATASETS) or f"; known are {', '.join(sorted(KNOWN_DATASETS))}"
            refuse(label, f"{name}.dataset", f"there is no known dataset {dataset!r}{hint}")
        epochs = entry["epochs"]
        if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs <= MAX_EPOCHS:
            refuse(label, f"{name}.epochs", f"a number above zero is needed, and this is {shown(epochs)}")
        datasets[dataset] = KNOWN_DATASETS[dataset]
        stages.append({"name": name, "datasets": {dataset: 1.0}, "epochs": epochs})
    return {"version": 1, "datasets": datasets, "stages": stages}


def _resolve_likeness(datasets: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Replace `{"like": other, ...}` by the other's entry with these keys changed; anything odd is left to pydantic."""

    def resolve(name: str, trail: tuple[str, ...]) -> Any:
        entry = datasets[name]
        if not isinstance(entry, dict) or "like" not in entry:
            return entry
        other = entry["like"]
        place = f"datasets.{name}.like"
        if not isinstance(other, str):
            refuse(label, place, f"the name of a dataset is needed, and this is {shown(other)}")
        if other in (*trail, name):
            refuse(label, place, f"a cycle of names: {' -> '.join((*trail, name, other))}")
        if other not in datasets:
            refuse(label, place, f"there is no dataset {other!r}{did_you_mean(other, datasets)}")
        base = resolve(other, (*trail, name))
        own = {key: value for key, value in entry.items() if key != "like"}
        return {**base, **own} if isinstance(base, dict) else base

    return {name: resolve(name, ()) for name in datasets}


class _BadJSONError(Exception):
    pass


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _BadJSONError(f"the key {key!r} stands twice in the same object")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise _BadJSONError(f"{name} is not a number that a plan can hold")
