"""The launch form without a screen: its fields, the command line they mean, what differs from defaults, the cost."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmplay.plans import plans_folder
from lmplay.utils.figures import format_bytes, format_count, format_seconds
from lmplay.utils.names import did_you_mean
from lmplay_tui.figures import short_number
from lmplay_tui.lines import Line, joined, line
from lmplay_tui.services.experiments import USUAL_ROWS

Values = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class FormField:
    """One field. `key` is the setting that it stands for, where it stands for one; `option` is its own option."""

    name: str
    label: str
    key: str = ""
    option: str = ""
    help: str = ""
    choice: bool = False


FIELDS: tuple[FormField, ...] = (
    FormField(name="experiment", label="experiment", help="what is trained", choice=True),
    FormField(name="plan", label="plan", option="--plan", help="what it is trained on, and for how long", choice=True),
    FormField(name="device", label="device", option="--device", help="auto takes the best there is", choice=True),
    FormField(name="precision", label="precision", key="train.precision", choice=True),
    FormField(name="batch_size", label="batch size", key="train.batch_size", option="--batch-size"),
    FormField(name="mini_batch_size", label="mini-batch", key="train.mini_batch_size", option="--mini-batch-size"),
    FormField(name="lr", label="learning rate", key="train.lr", option="--lr"),
    FormField(name="schedule", label="schedule", key="train.schedule", choice=True),
    FormField(name="steps", label="steps at most", key="limits.steps", option="--steps"),
    FormField(
        name="seed", label="seed", option="--seed", help="of the initial weights, the order of the data, dropout"
    ),
    FormField(name="name", label="name", option="--name", help="of the run; empty: experiment, date and four digits"),
    FormField(name="sets", label="overrides", help="further settings: model.num_blocks=2 train.weight_decay=0.1"),
)
BY_NAME = {field.name: field for field in FIELDS}
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the form has found out by asking the other commands; empty where the answer isn't there yet."""

    settings: Mapping[str, Mapping[str, Any]] = None  # type: ignore[assignment]
    """Key -> the row of `lmplay settings`."""
    plan: Mapping[str, Any] | None = None
    """`lmplay plans show PLAN --experiment EXPERIMENT`."""
    description: Mapping[str, Any] | None = None
    """`lmplay describe EXPERIMENT`."""

    def default(self, name: str) -> str:
        """What holds when a field is left empty: of the plan's first stage, else of lmplay."""
        field = BY_NAME[name]
        if name == "seed":
            return str(self.plan.get("seed", 0)) if self.plan is not None else ""
        if not field.key:
            return {"plan": "default", "device": "auto"}.get(name, "")
        table, _, key = field.key.partition(".")
        if table == "train" and self.plan is None:
            return ""  # not known yet: what lmplay would take without the plan says nothing
        stages = self.plan.get("stages", ()) if self.plan is not None else ()
        if table == "train" and stages and key in stages[0].get("train", {}):
            return short_number(stages[0]["train"][key])
        row = (self.settings or {}).get(field.key)
        return "" if row is None or row.get("default") is None else short_number(row["default"])

    def choices(self, name: str) -> tuple[str, ...]:
        row = (self.settings or {}).get(BY_NAME[name].key)
        return tuple(row["choices"]) if row is not None else ()

    def told(self, name: str) -> str:
        """Description and limits of a field."""
        field = BY_NAME[name]
        row = (self.settings or {}).get(field.key)
        if row is None:
            return field.help
        limits = _limits(row)
        return f"{row['description']}{f' ({limits})' if limits else ''}"


def _limits(row: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below"}
    return ", ".join(f"{word} {short_number(row[key])}" for key, word in words.items() if row.get(key) is not None)


def changed(values: Values, known: Known) -> dict[str, str]:
    """The fields that were filled in with something else than what holds anyway."""
    return {
        field.name: values[field.name].strip()
        for field in FIELDS
        if field.name != "experiment"
        and values.get(field.name, "").strip()
        and values[field.name].strip() != known.default(field.name)
    }


def arguments(values: Values, known: Known) -> list[str]:
    """What follows `lmplay run`."""
    found = [values["experiment"]]
    filled = changed(values, known)
    for field in FIELDS:
        value = filled.get(field.name)
        if value is None:
            continue
        if field.option:
            found += [field.option, value]
        elif field.key:
            found += ["--set", f"{field.key}={value}"]
    return [*found, *(part for one in _sets(filled.get("sets", "")) for part in ("--set", one))]


def command_line(values: Values, known: Known) -> str:
    return shlex.join(["lmplay", "run", *arguments(values, known)])


def _sets(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def described_as(values: Values, known: Known) -> tuple[tuple[str, ...], int]:
    """(settings of the model, rows at once) that parameters and memory depend on."""
    settings = tuple(one for one in _sets(values.get("sets", "")) if one.startswith("model.") and "=" in one)
    rows = _number(values.get("mini_batch_size") or known.default("mini_batch_size"))
    return settings, int(rows) if rows is not None and 1 <= rows < math.inf else USUAL_ROWS


def problems(values: Values, known: Known) -> dict[str, str]:
    """What can be seen to be wrong, by field; the command finds the rest before a run exists."""
    found = {}
    for name, value in changed(values, known).items():
        problem = _problem(name, value, known)
        if problem:
            found[name] = problem
    return found


def _problem(name: str, value: str, known: Known) -> str:
    settings = known.settings or {}
    if name == "sets":
        for one in _sets(value):
            key, equals, _ = one.partition("=")
            if not equals:
                return f"{one}: give it as key=value"
            model = known.description.get("settings", {}) if known.description is not None else {}
            keys = [*settings, *(f"model.{argument}" for argument in model)]
            known_table = key.startswith("model.") and not model
            if settings and key not in keys and not known_table:
                return f"unknown key {key}{did_you_mean(key, keys)}"
        return ""
    row = settings.get(BY_NAME[name].key)
    if name == "seed" or (row is not None and not row["choices"]):
        if name == "mini_batch_size" and value == "auto":
            return ""
        number = _number(value)
        if number is None or not math.isfinite(number):
            return f"{value!r} is no number"
        whole = name == "seed" or isinstance((row or {}).get("default"), int) or name == "steps"
        if whole and number != int(number):
            return "a whole number, please"
        return _outside(number, row or {"minimum": 0})
    return ""


def _outside(number: float, row: Mapping[str, Any]) -> str:
    wrong = (
        (row.get("minimum") is not None and number < row["minimum"])
        or (row.get("above") is not None and number <= row["above"])
        or (row.get("maximum") is not None and number > row["maximum"])
        or (row.get("below") is not None and number >= row["below"])
    )
    return _limits(row) if wrong else ""


def difference_line(values: Values, known: Known) -> Line:
    """What differs from what holds anyway."""
    parts = []
    for name, value in changed(values, known).items():
        if name in ("plan", "name"):
            continue
        before = known.default(name)
        label = BY_NAME[name].label
        parts.append(
            line((value, "accent"))
            if name == "sets"
            else line((f"{label} ", "muted"), (f"{before} → " if before else "", "muted"), (value, "accent"))
        )
    return joined(parts, ("  ", "")) if parts else line(("everything as the plan and the defaults say", "muted"))


def estimate_lines(values: Values, known: Known) -> list[Line]:
    """Tokens, steps and time; memory and disk; as far as they can be told."""
    parts: list[Line] = []
    needs: list[Line] = []
    cost = _cost(values, known)
    if cost is not None:
        tokens, steps, seconds = cost
        parts += [line((format_count(tokens), "bold"), " tokens"), line((f"{steps:,}", "bold"), " steps")]
        if seconds is not None:
            parts.append(line("about ", (format_seconds(seconds), "bold")))
    if known.plan is not None:
        disk = sum(stage.get("disk") or 0 for stage in known.plan.get("stages", ()))
        prepared = all(dataset.get("prepared") for dataset in known.plan.get("datasets", ()))
        needs.append(line(f"{format_bytes(disk)} of tokens", ("" if prepared else " to prepare", "warn")))
    if known.description is not None:
        needs.append(line((format_bytes(_memory(values, known)), "bold"), " of memory"))
        # Weights and the optimizer's two moments, in float32.
        needs.append(line(f"{format_bytes(12 * int(known.description['parameters']))} a checkpoint"))
    if not parts and not needs:
        return [line(("takes     ", "muted"), ("asking what it costs...", "muted"))]
    rows = (("takes     ", parts), ("needs     ", needs))
    return [line((name, "muted"), *joined(row, (", ", "muted"))) for name, row in rows if row]


def _cost(values: Values, known: Known) -> tuple[float, int, float | None] | None:
    """(tokens, steps, seconds) of the whole plan under what is filled in."""
    if known.plan is None:
        return None
    typed, limit = _number(values.get("batch_size")), _number(values.get("steps"))
    tokens, steps, seconds = 0.0, 0, 0.0
    timed = True
    for stage in known.plan.get("stages", ()):
        rows, batch = stage.get("rows"), typed or stage.get("batch_size")
        if not rows or not batch:
            return None
        here = math.ceil(rows / batch)
        if limit is not None:
            here = min(here, max(0, int(limit) - steps))
        share = min(1.0, here * batch / rows)
        steps += here
        tokens += share * float(stage.get("tokens") or 0)
        if stage.get("seconds") is None:
            timed = False
        else:
            seconds += share * float(stage["seconds"])
    return tokens, steps, seconds if timed else None


def _memory(values: Values, known: Known) -> float:
    assert known.description is not None
    memory = known.description["memory"]
    stages = known.plan.get("stages", ()) if known.plan is not None else ()
    rows = _number(values.get("mini_batch_size") or known.default("mini_batch_size")) or memory["mini_batch_size"]
    length = stages[0]["sequence_length"] if stages else memory["sequence_length"]
    share = rows / memory["mini_batch_size"] * length / memory["sequence_length"]
    return float(memory["total"] - memory["activations"] + memory["activations"] * share)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def values_like(asked: Mapping[str, Any]) -> dict[str, str]:
    """The form filled in as a run was asked for, from what its `run.json` holds; without its name."""
    request = asked.get("request")
    request = request if isinstance(request, Mapping) else {}
    train, data, model = (dict(request.get(table) or {}) for table in ("train", "data", "model"))
    limits = dict(request.get("limits") or {})
    plan = asked.get("plan")
    values = {
        "experiment": str(asked.get("experiment", "")),
        "plan": _plan_of(request.get("plan"), plan if isinstance(plan, Mapping) else {}),
        "device": str(request.get("device") or "auto"),
        "seed": str(request.get("seed", asked.get("seed") or 0)),
        "steps": "" if limits.get("steps") is None else str(limits["steps"]),
    }
    for field in FIELDS:
        table, _, key = field.key.partition(".")
        if table == "train" and key in train:
            values[field.name] = str(train.pop(key))
    rest = [
        f"{table}.{key}={_spelled(value)}"
        for table, part in (("model", model), ("train", train), ("data", data))
        for key, value in part.items()
    ]
    values["sets"] = " ".join(rest)
    return values


def _plan_of(asked: object, plan: Mapping[str, Any]) -> str:
    """As it can be asked for again from any folder: a ready plan by its name, another by its path."""
    name, folder = str(asked or plan.get("name", "")), plan.get("folder")
    if not folder or Path(name).suffix == ".json" or Path(str(folder)) == plans_folder():
        return name
    return str(Path(str(folder)) / f"{plan.get('name') or name}.json")


def _spelled(value: object) -> str:
    text = str(value)
    return shlex.quote(text) if " " in text else text
