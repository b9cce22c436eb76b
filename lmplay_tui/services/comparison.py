"""Marked runs held against each other, renewed as they grow. `look()` reads files and is called in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lmplay.runs import Status, read_status
from lmplay.stats.apart import open_history
from lmplay.stats.compare import compare_runs, group_by_seed, set_apart
from lmplay.stats.curves import AXES, RunCurve, load_curve, mean_curve
from lmplay.stats.history import History
from lmplay.stats.parse import Floats
from lmplay.stats.standing import Comparison, Group
from lmplay.utils.errors import LMPlayError

COLUMNS = {"tokens": "tokens", "samples": "samples", "steps": "step", "time": "time", "flops": "tokens"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is compared with what, and at equal what."""

    runs: tuple[Path, ...]
    baseline: str = ""
    axis: str = "tokens"
    stage: str | None = None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The comparison and the curves under it. `problems` names runs that can't be read."""

    asked: Asked
    result: Comparison | None = None
    curves: tuple[RunCurve, ...] = ()
    groups: tuple[Group, ...] = ()
    training: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    """Run -> (x, loss) of its training rows."""
    differences: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    """Group -> (x, mean validation loss minus the baseline's)."""
    stages: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    number: int = 0


class ComparisonFeed:
    def __init__(self) -> None:
        self._histories: dict[Path, History] = {}
        self._states: dict[Path, Status | None] = {}
        self._last = Compared(asked=Asked(runs=()))

    def look(self, asked: Asked) -> Compared:
        """The comparison as things stand; the same object as before when nothing has changed."""
        changed = asked != self._last.asked
        problems: list[str] = []
        readable: list[Path] = []
        for path in asked.runs:
            try:
                status = read_status(path)
                if path in self._histories:
                    changed = self._histories[path].refresh() or changed
                else:
                    self._histories[path], changed = open_history(path), True
            except LMPlayError as error:
                problems.append(str(error))
                changed = changed or path in self._histories
                self._histories.pop(path, None)
                continue
            readable.append(path)
            before = self._states.get(path)
            changed = changed or before is None or (before.state, before.step) != (status.state, status.step)
            self._states[path] = status
        for gone in [path for path in self._histories if path not in readable]:
            del self._histories[gone]
        if not changed and tuple(problems) == self._last.problems:
            return self._last
        self._last = self._compare(asked, readable, problems)
        return self._last

    def _compare(self, asked: Asked, paths: Sequence[Path], problems: list[str]) -> Compared:
        curves: list[RunCurve] = []
        training: dict[str, tuple[Floats, Floats]] = {}
        stages: dict[str, None] = {}
        for path in paths:
            history = self._histories[path]
            try:
                curve = load_curve(path, stage=asked.stage, history=history)
            except LMPlayError as error:
                problems.append(str(error))
                continue
            curves.append(curve)
            stages |= dict.fromkeys(history.train.stages)
            training[curve.name] = _training_curve(history, curve, asked)
        result, groups = None, tuple[Group, ...]()
        if curves:
            names = {curve.name for curve in curves} | {group.name for group in group_by_seed(curves)}
            baseline = asked.baseline if asked.baseline in names else None
            held, reasons = set_apart(curves, baseline=baseline, axis=asked.axis, stage=asked.stage)
            problems += [f"{reason}: it is left out" for reason in reasons]
            groups = (*group_by_seed(held), *group_by_seed([curve for curve in curves if curve not in held]))
            result = compare_runs(held, baseline=baseline, axis=asked.axis, stage=asked.stage)
        return Compared(
            asked=asked,
            result=result,
            curves=tuple(curves),
            groups=groups,
            training=training,
            differences=_differences(groups, result, asked.axis),
            stages=tuple(stages),
            problems=tuple(problems),
            number=self._last.number + 1,
        )


def next_axis(now: str) -> str:
    return AXES[(AXES.index(now) + 1) % len(AXES)] if now in AXES else AXES[0]


def _training_curve(history: History, curve: RunCurve, asked: Asked) -> tuple[Floats, Floats]:
    rows = history.train
    x, y = rows.column(COLUMNS[asked.axis]), rows.column("loss")
    if asked.stage is not None:
        code = rows.stages.index(asked.stage) if asked.stage in rows.stages else -2
        chosen = rows.stage == code
        before = np.flatnonzero(chosen)
        origin = x[before[0] - 1] if len(before) and before[0] > 0 else 0.0
        x, y = x[chosen] - origin, y[chosen]
    if asked.axis == "flops":
        x = x * curve.flops_per_token if curve.flops_per_token is not None else np.full(len(x), np.nan)
    return x, y


def _differences(groups: Sequence[Group], result: Comparison | None, axis: str) -> dict[str, tuple[Floats, Floats]]:
    """Mean validation loss of each group minus that of the baseline, as far as both go."""
    base = next((group for group in groups if result is not None and group.name == result.baseline), None)
    found: dict[str, tuple[Floats, Floats]] = {}
    if base is None or not _drawable(base, axis):
        return found
    base_x, base_y = mean_curve(base.runs, axis)
    for group in groups:
        if group is base or not _drawable(group, axis):
            continue
        x, y = mean_curve(group.runs, axis)
        if not len(x) or not len(base_x):
            continue
        places = np.unique(np.concatenate([x, base_x]))
        places = places[(places >= max(x[0], base_x[0])) & (places <= min(x[-1], base_x[-1]))]
        if len(places):
            found[group.name] = (places, np.interp(places, x, y) - np.interp(places, base_x, base_y))
    return found


def _drawable(group: Group, axis: str) -> bool:
    return all(len(run) and axis in run.x for run in group.runs)
