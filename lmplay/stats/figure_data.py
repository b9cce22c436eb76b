"""The curves of a picture without the picture: raw and smoothed training loss, validation, seed bands, differences.

`lmplay plot` draws them with matplotlib or in the terminal, and writes the same numbers as CSV.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmplay.stats.curves import RunCurve, load_curve, mean_curve, start_of_stage
from lmplay.stats.history import History
from lmplay.stats.parse import Floats
from lmplay.stats.smoothing import smooth
from lmplay.stats.standing import Group
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean

_AXIS_COLUMNS = {"tokens": "tokens", "samples": "samples", "steps": "step", "time": "time", "flops": "tokens"}
AXIS_LABELS = {
    "tokens": "tokens",
    "samples": "samples",
    "steps": "steps",
    "time": "seconds of training",
    "flops": "floating-point operations",
}


@dataclass(frozen=True, kw_only=True)
class RunSeries:
    """One run: every training row, smoothed, and its validations. All (N,) or (V,)."""

    curve: RunCurve
    x: Floats
    raw: Floats
    smoothed: Floats
    validation_x: Floats
    validation: Floats
    borders: tuple[tuple[str, float], ...] = ()
    """Where each stage but the first begins."""


@dataclass(frozen=True, kw_only=True)
class GroupSeries:
    """Runs that differ in the seed: the mean of their validations and how far they spread."""

    name: str
    runs: tuple[RunSeries, ...]
    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    difference_x: Floats = field(default_factory=lambda: np.empty(0))
    difference: Floats = field(default_factory=lambda: np.empty(0))
    """Mean minus that of the baseline, as far as both go; empty for the baseline."""
    difference_low: Floats = field(default_factory=lambda: np.empty(0))
    difference_high: Floats = field(default_factory=lambda: np.empty(0))
    """Its best and worst seed minus the baseline's mean."""


def load_series(
    path: Path, *, axis: str, value: str = "loss", span: float | None = None, stage: str | None = None
) -> RunSeries:
    """Read the run in `path`. `value` names any logged figure; `span` is how many rows to smooth over."""
    history = History(path)
    curve = load_curve(path, stage=stage, history=history)
    if value not in history.train and value not in history.validate:
        known = sorted({*history.train, *history.validate})
        raise WrongUsageError(
            f"{path.name} has logged no {value!r}{did_you_mean(value, known)} (it has {', '.join(known)})"
        )
    train, validate = history.train, history.validate
    chosen_train = np.ones(train.num_rows, bool) if stage is None else _in_stage(train, stage)
    chosen_validate = np.ones(validate.num_rows, bool) if stage is None else _in_stage(validate, stage)
    factor = 1.0
    if axis == "flops":
        if curve.flops_per_token is None:
            raise WrongUsageError(f"{path.name} does not say how many FLOPs a token takes: choose another --x")
        factor = curve.flops_per_token
    column = _AXIS_COLUMNS[axis]
    origin = 0.0 if stage is None else start_of_stage(train, stage)[column]
    x = (train.column(column)[chosen_train] - origin) * factor
    raw = train.column(value)[chosen_train]
    return RunSeries(
        curve=curve,
        x=x,
        raw=raw,
        smoothed=smooth(raw, usual_span(len(raw)) if span is None else span),
        validation_x=(validate.column(column)[chosen_validate] - origin) * factor,
        validation=validate.column(value)[chosen_validate],
        borders=_borders(train, x) if stage is None else (),
    )


def usual_span(rows: int) -> float:
    """1% of a run's rows; of a short run that is nothing, so ten, and no more than a twentieth of its rows."""
    return max(1.0, rows / 100, min(10.0, rows / 20))


def group_series(
    groups: Sequence[Group], series: dict[str, RunSeries], *, axis: str, score: str = "loss"
) -> list[GroupSeries]:
    """One entry a group, the first of them the baseline."""
    found: list[GroupSeries] = []
    for group in groups:
        usable = [run for run in group.runs if len(run) and axis in run.x]
        if usable and score in ("loss", "bits_per_byte", "accuracy"):
            x, mean = mean_curve(usable, axis, score)
            values = [np.interp(x, run.x[axis], run.scores[score]) for run in usable]
            low, high = np.min(values, axis=0), np.max(values, axis=0)
        else:
            x = mean = low = high = np.empty(0)
        places, base = _common(found[0], x) if found else (np.empty(0), np.empty(0))
        differences = [np.interp(places, x, values) - base if len(places) else base for values in (mean, low, high)]
        found.append(
            GroupSeries(
                name=group.name,
                runs=tuple(series[run.name] for run in group.runs),
                x=x,
                mean=mean,
                low=low,
                high=high,
                difference_x=places,
                difference=differences[0],
                difference_low=differences[1],
                difference_high=differences[2],
            )
        )
    return found


def to_csv(groups: Sequence[GroupSeries], *, axis: str, value: str) -> str:
    """Every number of the picture: group, run, seed, kind (train, validate, mean, difference), x, value, smoothed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "run", "seed", "kind", axis, value, "smoothed"])
    writer.writerows(_csv_rows(groups))
    return text.getvalue()


def _csv_rows(groups: Sequence[GroupSeries]) -> Iterator[list[Any]]:
    for group in groups:
        for run in group.runs:
            named = [group.name, run.curve.name, run.curve.seed]
            for x, raw, smoothed in zip(run.x, run.raw, run.smoothed, strict=True):
                yield [*named, "train", x, raw, smoothed]
            for x, validation in zip(run.validation_x, run.validation, strict=True):
                yield [*named, "validate", x, validation, ""]
        for x, mean in zip(group.x, group.mean, strict=True):
            yield [group.name, "", "", "mean", x, mean, ""]
        for x, difference in zip(group.difference_x, group.difference, strict=True):
            yield [group.name, "", "", "difference", x, difference, ""]


def _common(base: GroupSeries, x: Floats) -> tuple[Floats, Floats]:
    """The x of both, as far as both go, and the baseline's mean there."""
    if len(x) == 0 or len(base.x) == 0:
        return np.empty(0), np.empty(0)
    places = np.unique(np.concatenate([base.x, x]))
    places = places[(places >= max(base.x[0], x[0])) & (places <= min(base.x[-1], x[-1]))]
    return places, np.interp(places, base.x, base.mean)


def _in_stage(rows: Any, stage: str) -> Any:
    return rows.stage == (rows.stages.index(stage) if stage in rows.stages else -2)


def _borders(rows: Any, x: Floats) -> tuple[tuple[str, float], ...]:
    changes = np.flatnonzero(np.diff(rows.stage) != 0) + 1
    return tuple((rows.stages[rows.stage[place]], float(x[place])) for place in changes if rows.stage[place] >= 0)
