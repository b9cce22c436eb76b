"""The course of a run's validation against what it cost: the curves that comparisons and pictures are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmplay.runs import JsonlTail, RunSummary, all_settings, read_run_file, summarize
from lmplay.runs.layout import EVENTS
from lmplay.stats.history import History, Rows
from lmplay.stats.parse import Floats

AXES = ("tokens", "samples", "steps", "time", "flops")
SCORES = ("loss", "bits_per_byte", "accuracy")
_COLUMNS = {"tokens": "tokens", "samples": "samples", "steps": "step", "time": "time"}

# Settings that do not change what is learned: the size of the pieces, and when one looks.
WITHOUT_EFFECT = frozenset(
    {"seed", "device"}
    | {f"train.{key}" for key in ("mini_batch_size", "validation_interval", "save_interval", "keep_checkpoints")}
    | {f"train.{key}" for key in ("sample_prompt", "sample_tokens", "loss", "diagnostics_interval")}
    | {f"train.{key}" for key in ("keep_every", "keep_stage_ends", "keep_free_gb", "max_bad_steps", "spike_sigmas")}
    | {"limits.hours"}
)


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """One run as comparisons see it. Arrays have one entry a validation, in the order of the x axes, no loss is NaN."""

    summary: RunSummary
    settings: Mapping[str, Any]
    x: Mapping[str, Floats]
    """Per axis of `AXES` that is known: (V,)"""
    scores: Mapping[str, Floats]
    """`loss`, `bits_per_byte`, `accuracy`: (V,)"""
    diverged: bool = False
    """The newest validation loss is not a number."""
    parameters: int | None = None
    flops_per_token: float | None = None
    """Of training: forward and backward."""
    validation: Mapping[str, Any] = field(default_factory=dict)
    """What was validated on; runs in which this differs can't be compared."""

    @property
    def name(self) -> str:
        return self.summary.name

    @property
    def seed(self) -> int | None:
        return self.summary.seed

    def __len__(self) -> int:
        return len(self.scores["loss"])

    def span(self, axis: str) -> tuple[float, float]:
        """First and last x of a validation."""
        return float(self.x[axis][0]), float(self.x[axis][-1])

    def at(self, axis: str, x: float, score: str = "loss") -> float:
        """The score at `x`, on the line between the two validations around it; NaN outside of the run."""
        known = np.isfinite(self.scores[score])
        places, values = self.x[axis][known], self.scores[score][known]
        if len(places) == 0 or not places[0] <= x <= places[-1]:
            return math.nan
        return float(np.interp(x, places, values))


def load_curve(
    path: Path,
    *,
    stage: str | None = None,
    costs: Mapping[str, Any] | None = None,
    history: History | None = None,
) -> RunCurve:
    """Read a run. With `stage`, only its validations in that stage, and x counted from that stage's first step.

    `costs` may give `parameters` and `flops_per_token` where the run itself doesn't say. Raises `LMPlayError` when the
    folder holds no readable run.
    """
    asked = read_run_file(path)
    summary = summarize(path)
    history = history or History(path)
    rows = history.validate
    chosen = np.ones(rows.num_rows, bool)
    origin = dict.fromkeys(_COLUMNS.values(), 0.0)
    if stage is not None:
        code = rows.stages.index(stage) if stage in rows.stages else -2
        chosen = rows.stage == code
        origin = start_of_stage(history.train, stage)
    finite = np.isfinite(rows.column("loss"))
    diverged = bool(len(finite[chosen]) and not finite[chosen][-1])
    chosen &= finite
    x = {axis: rows.column(column)[chosen] - origin[column] for axis, column in _COLUMNS.items()}
    kept = _last_of_each(x["steps"])
    costs = {**_known_costs(path, asked, summary), **(costs or {})}
    flops = costs.get("flops_per_token")
    axes = {axis: values[kept] for axis, values in x.items() if np.isfinite(values).all()}
    if flops is not None and "tokens" in axes:
        axes["flops"] = axes["tokens"] * float(flops)
    return RunCurve(
        summary=summary,
        settings={**all_settings(asked), **_code_of(asked)},
        x=axes,
        scores={score: rows.column(score)[chosen][kept] for score in SCORES},
        diverged=diverged,
        parameters=costs.get("parameters"),
        flops_per_token=None if flops is None else float(flops),
        validation=_validation_of(asked, summary),
    )


def mean_curve(curves: Sequence[RunCurve], axis: str, score: str = "loss") -> tuple[Floats, Floats]:
    """(x, mean score) of several runs on the x of all of them, as far as all of them go."""
    start = max(curve.span(axis)[0] for curve in curves)
    end = min(curve.span(axis)[1] for curve in curves)
    places = np.unique(np.concatenate([curve.x[axis] for curve in curves]))
    places = places[(places >= start) & (places <= end)]
    values = [np.interp(places, curve.x[axis], curve.scores[score]) for curve in curves]
    return places, np.mean(values, axis=0)


def first_reached(x: Floats, values: Floats, target: float) -> float | None:
    """The x at which the line through the points first falls to `target`; None when it never does."""
    below = np.flatnonzero(values <= target)
    if len(below) == 0:
        return None
    index = int(below[0])
    if index == 0:
        return float(x[0])
    before, after = values[index - 1], values[index]
    share = (before - target) / (before - after)
    return float(x[index - 1] + share * (x[index] - x[index - 1]))


def _last_of_each(steps: Floats) -> NDArray[np.bool_]:
    """Which of several validations at one step count: the last."""
    if len(steps) == 0:
        return np.zeros(0, np.bool_)
    return np.append(steps[1:] != steps[:-1], True)


def start_of_stage(train: Rows, stage: str) -> dict[str, float]:
    """Position of the last step before the stage: what its validations are counted from."""
    before = dict.fromkeys(_COLUMNS.values(), 0.0)
    if stage not in train.stages:
        return before
    first = np.flatnonzero(train.stage == train.stages.index(stage))
    if len(first) and first[0] > 0:
        before = {column: float(train.column(column)[first[0] - 1]) for column in before}
    return before


def _code_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The sum over the experiment's files: a model that was edited between two runs makes them different ones."""
    code = asked.get("code")
    return {"code": str(code["sum"])[:12]} if isinstance(code, Mapping) and "sum" in code else {}


def _known_costs(path: Path, asked: Mapping[str, Any], summary: RunSummary) -> dict[str, Any]:
    """`parameters` and `flops_per_token` as the run's files say: run.json, the status, or the event of its start."""
    found: dict[str, Any] = {}
    cost = asked.get("cost")
    sources: list[Mapping[str, Any]] = [cost if isinstance(cost, Mapping) else {}, summary.status.fields]
    if not any("parameters" in source for source in sources):
        sources += [row for row in JsonlTail(path / EVENTS).read(1 << 16) if row.get("event") == "started"]
    for source in sources:
        for key, name in (("parameters", "parameters"), ("training_flops_per_token", "flops_per_token")):
            if name not in found and isinstance(source.get(key), int | float):
                found[name] = source[key]
    return found


def _validation_of(asked: Mapping[str, Any], summary: RunSummary) -> dict[str, Any]:
    """What is validated on: the key over its content where the worker gave one, and what can be said of it in words."""
    plan = asked.get("plan")
    content = plan.get("content") if isinstance(plan, Mapping) else None
    datasets = content.get("datasets") if isinstance(content, Mapping) else None
    facts: dict[str, Any] = {}
    if isinstance(datasets, Mapping):
        facts["tokenizer"] = sorted({str(spec.get("tokenizer", "gpt2")) for spec in datasets.values()})
        facts["validation data"] = {
            name: {key: spec.get(key) for key in ("source", "args", "fields", "template", "validation")}
            for name, spec in sorted(datasets.items())
        }
    lengths = {value for key, value in summary.config.items() if key.rpartition(".")[2] == "sequence_length"}
    if lengths:
        facts["sequence length in validation"] = max(lengths, key=lambda length: (isinstance(length, int), length))
    key = summary.status.fields.get("validation_key")
    if key is not None:
        facts["validation key"] = key
    return facts
