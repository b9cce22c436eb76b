"""The filter language of runs: `exp:gpt2ish loss<4 -tag:old lr>=1e-3 state:running`.

Used by `lmplay runs` and by the workbench. Terms are separated by blanks and must all hold; `-` before a term negates
it; `a,b` after a colon means either; quotes keep blanks together. A bare word is looked for in name, experiment, tags
and note.
"""

from __future__ import annotations

import fnmatch
import math
import re
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lmplay.runs.summary import RunSummary
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean

Test = Callable[[RunSummary], bool]

_TERM = re.compile(r"(?P<key>[A-Za-z_][\w.]*)(?P<operator>:|<=|>=|!=|=|<|>)(?P<value>.*)", re.DOTALL)
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "%": 0.01}
_DURATIONS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

FIELDS: dict[str, Callable[[RunSummary], Any]] = {
    "run": lambda run: run.name,
    "experiment": lambda run: run.experiment,
    "state": lambda run: run.state,
    "stage": lambda run: run.status.stage,
    "plan": lambda run: run.plan,
    "tag": lambda run: run.labels.tags,
    "note": lambda run: run.labels.note,
    "group": lambda run: run.labels.group,
    "host": lambda run: run.status.host,
    "reason": lambda run: run.status.reason,
    "seed": lambda run: run.seed,
    "step": lambda run: run.status.step,
    "samples": lambda run: run.status.samples,
    "tokens": lambda run: run.status.tokens,
    "time": lambda run: run.status.time,
    "loss": lambda run: run.status.loss,
    "validation_loss": lambda run: run.status.validation_loss,
    "perplexity": lambda run: run.status.fields.get("validation_perplexity"),
    "bits_per_byte": lambda run: run.status.fields.get("validation_bits_per_byte"),
    "accuracy": lambda run: run.status.fields.get("validation_accuracy"),
    "tokens_per_second": lambda run: run.status.fields.get("tokens_per_second"),
    "parameters": lambda run: run.cost.get("parameters"),
    "progress": lambda run: run.fraction,
    "left": lambda run: run.seconds_left,
    "pid": lambda run: run.status.pid,
    "age": lambda run: run.status.age,
    "created": lambda run: None if run.created is None else time.time() - run.created,
}
"""What can be filtered, sorted and shown by name; `age` and `created` are seconds ago."""

ALIASES = {
    "exp": "experiment",
    "name": "run",
    "tags": "tag",
    "val": "validation_loss",
    "val_loss": "validation_loss",
    "validation": "validation_loss",
    "steps": "step",
    "bpb": "bits_per_byte",
    "ppl": "perplexity",
    "speed": "tokens_per_second",
    "eta": "left",
}


def parse_query(text: str) -> Test:
    """The filter that `text` means; `WrongUsageError` names a term that can't be read. An empty text holds for all."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise WrongUsageError(f"the filter {text!r} can't be read: {str(error).lower()}") from None
    tests = [_parse_term(word) for word in words]
    return lambda run: all(test(run) for test in tests)


def value_of(run: RunSummary, key: str) -> Any:
    """A field or setting of a run by its name, an alias, a dotted key or the last part of one (`lr` for `train.lr`)."""
    name = ALIASES.get(key, key)
    if name in FIELDS:
        return FIELDS[name](run)
    if name in run.config:
        return run.config[name]
    ending = f".{name}"
    for known in run.config:
        if known.endswith(ending):
            return run.config[known]
    return run.status.fields.get(name)


def check_key(key: str, runs: Sequence[RunSummary]) -> None:
    """`WrongUsageError` with the nearest names when no run has anything of that name."""
    name = ALIASES.get(key, key)
    if name in FIELDS or any(value_of(run, key) is not None for run in runs):
        return
    known = {*FIELDS, *ALIASES, *(setting for run in runs for setting in run.config)}
    if runs:
        raise WrongUsageError(f"runs have no {key!r}{did_you_mean(key, known)}")


def select(runs: Sequence[RunSummary], text: str) -> list[RunSummary]:
    """The runs for which the filter holds, in their order; keys that no run knows are an error."""
    for word in shlex.split(text) if _balanced(text) else ():
        if match := _TERM.fullmatch(word.removeprefix("-")):
            check_key(match["key"], runs)
    test = parse_query(text)
    return [run for run in runs if test(run)]


def sort_runs(runs: Iterable[RunSummary], key: str) -> list[RunSummary]:
    """By a field or setting, smallest first; `-key` the other way round. Runs that don't have it come last."""
    reverse = key.startswith("-")
    name = key.removeprefix("-")
    known: list[tuple[Any, RunSummary]] = []
    unknown: list[RunSummary] = []
    for run in runs:
        value = value_of(run, name)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            unknown.append(run)
        else:
            known.append((value if isinstance(value, int | float) else str(value), run))
    numeric = all(isinstance(value, int | float) for value, _ in known)
    known.sort(key=lambda item: item[0] if numeric else str(item[0]), reverse=reverse)
    return [run for _, run in known] + unknown


def _parse_term(word: str) -> Test:
    if word.startswith("-") and len(word) > 1:
        test = _parse_term(word[1:])
        return lambda run: not test(run)
    match = _TERM.fullmatch(word)
    if match is None:
        wanted = word.casefold()
        return lambda run: any(
            wanted in text.casefold() for text in (run.name, run.experiment, run.labels.note, *run.labels.tags)
        )
    key, operator, text = match["key"], match["operator"], match["value"]
    if not text:
        raise WrongUsageError(
            f"the filter {word!r} has nothing after {operator!r}; for example loss<4 or state:running"
        )
    if operator in ("<", "<=", ">", ">="):
        return _compare(key, operator, _number(text, word))
    alternatives = text.split(",")
    if operator == "!=":
        return lambda run: not any(_equals(value_of(run, key), one) for one in alternatives)
    return lambda run: any(_equals(value_of(run, key), one) for one in alternatives)


def _compare(key: str, operator: str, limit: float) -> Test:
    holds: dict[str, Callable[[float], bool]] = {
        "<": lambda value: value < limit,
        "<=": lambda value: value <= limit,
        ">": lambda value: value > limit,
        ">=": lambda value: value >= limit,
    }

    def test(run: RunSummary) -> bool:
        value = value_of(run, key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return holds[operator](value)

    return test


def _equals(value: Any, text: str) -> bool:
    if isinstance(value, tuple | list):
        return any(_equals(item, text) for item in value)
    if value is None:
        return text.casefold() in ("none", "null")
    if isinstance(value, bool):
        return text.casefold() == str(value).casefold()
    if isinstance(value, int | float):
        number = _number_or_none(text)
        return number is not None and (value == number or (math.isnan(value) and math.isnan(number)))
    return fnmatch.fnmatchcase(str(value).casefold(), text.casefold())


def _number(text: str, word: str) -> float:
    number = _number_or_none(text)
    if number is None:
        raise WrongUsageError(f"the filter {word!r} compares with {text!r}, which is no number (10k, 1e-3, 5%, 2h are)")
    return number


def _number_or_none(text: str) -> float | None:
    match = re.fullmatch(r"([-+]?[\d.]+(?:e[-+]?\d+)?|[-+]?inf|nan)([a-z%]*)", text.casefold().replace("_", ""))
    if match is None:
        return None
    unit = _DURATIONS.get(match[2]) or _UNITS.get(match[2]) if match[2] else 1.0
    try:
        return None if unit is None else float(match[1]) * unit
    except ValueError:
        return None


def _balanced(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True
