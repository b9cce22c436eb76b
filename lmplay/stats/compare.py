"""Is this idea better than the baseline? Runs side by side at equal tokens (or samples, steps, time, FLOPs).

Runs that differ in the seed only form a group. Everything is read off validation, the same fixed text for all; where it
isn't the same, there is no comparison. `lmplay compare` and the workbench show what `compare_runs` returns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lmplay.runs import differing
from lmplay.stats.curves import AXES, WITHOUT_EFFECT, RunCurve, first_reached, mean_curve
from lmplay.stats.seeds import Test, bootstrap_interval, holm, paired_test, seeds_needed, single_test, welch_test
from lmplay.stats.standing import Comparison, Group, Standing
from lmplay.stats.verdict import verdict_alone, verdict_of
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.files import to_json


def compare_runs(
    curves: Sequence[RunCurve], *, baseline: str | None = None, axis: str = "tokens", stage: str | None = None
) -> Comparison:
    """Hold every group of runs against the one that `baseline` names (a run or group; the first run's without it)."""
    if axis not in AXES:
        raise WrongUsageError(f"there is no axis {axis!r}; there are {', '.join(AXES)}")
    assert curves, "nothing to compare"
    groups = group_by_seed(curves)
    base = _find_baseline(groups, baseline or curves[0].name)
    groups = [base, *(group for group in groups if group is not base)]
    reasons = tuple(reason for run in curves for reason in _why_incomparable(base.runs[0], run, axis, stage))
    if reasons:
        verdict = f"These runs can't be compared: {'; '.join(dict.fromkeys(reasons))}."
        reasons = tuple(dict.fromkeys(reasons))
        return Comparison(
            baseline=base.name, axis=axis, x=None, stage=stage, comparable=False, reasons=reasons, verdict=verdict
        )
    x = min(run.span(axis)[1] for run in [run for run in curves if not run.diverged] or curves)
    tests = {group.name: _test(group, base, axis, x) for group in groups[1:]}
    tested = [name for name, test in tests.items() if test is not None]
    adjusted = dict(zip(tested, holm([tests[name].p_value for name in tested]), strict=True))  # type: ignore[union-attr]
    standings = tuple(
        _standing(group, base, axis, x, tests.get(group.name), adjusted.get(group.name)) for group in groups
    )
    return Comparison(
        baseline=base.name,
        axis=axis,
        x=x,
        stage=stage,
        comparable=True,
        notes=tuple(_notes(curves, axis, x)) + tuple(_early(standings)),
        standings=standings,
        verdict=" ".join(standing.verdict for standing in standings[1:]) or verdict_alone(standings[0]),
    )


def set_apart(
    curves: Sequence[RunCurve], *, baseline: str | None = None, axis: str = "tokens", stage: str | None = None
) -> tuple[list[RunCurve], list[str]]:
    """The runs that `compare_runs` can hold against the baseline, and why it can't the others.

    Without `baseline` it is the first run that was validated. Where it has nothing beside it that it could be compared
    with, all runs come back: the comparison itself says why there is none.
    """
    baseline = baseline or next((run.name for run in curves if len(run)), curves[0].name)
    group = _find_baseline(group_by_seed(curves), baseline).runs
    base = next((run for run in group if run.name == baseline), group[0])
    reasons = {run.name: _why_incomparable(base, run, axis, stage) for run in curves}
    held = [run for run in curves if not reasons[run.name]]
    if base not in held or len(held) == 1 < len(curves):
        return list(curves), []
    return held, [reason for run in curves for reason in reasons[run.name]]


def group_by_seed(curves: Sequence[RunCurve]) -> list[Group]:
    """Runs with the same settings but for the seed together, in the order in which they were given."""
    by_settings: dict[str, list[RunCurve]] = {}
    for run in curves:
        decisive = {key: value for key, value in run.settings.items() if key not in WITHOUT_EFFECT}
        by_settings.setdefault(to_json(dict(sorted(decisive.items()))), []).append(run)
    groups: list[Group] = []
    for members in by_settings.values():
        taken: set[int | None] = set()
        apart: list[RunCurve] = []
        together: list[RunCurve] = []
        for run in members:  # a second run with the same seed is a repeat, no further seed
            (apart if run.seed in taken else together).append(run)
            taken.add(run.seed)
        groups += [Group(_group_name(together), together), *(Group(run.name, [run]) for run in apart)]
    return groups


def _group_name(runs: Sequence[RunCurve]) -> str:
    if len(runs) == 1:
        return runs[0].name
    shared = runs[0].name
    for run in runs[1:]:
        while not run.name.startswith(shared):
            shared = shared[:-1]
    shared = re.sub(r"[-_.]*(seed|s)?[-_.=]*\d*$", "", shared)
    return shared or str(runs[0].summary.experiment or runs[0].name)


def _find_baseline(groups: Sequence[Group], name: str) -> Group:
    for group in groups:
        if group.name == name or any(run.name == name or run.summary.labels.group == name for run in group.runs):
            return group
    for group in groups:
        if any(run.name.startswith(name) for run in group.runs):
            return group
    raise WrongUsageError(f"the baseline {name!r} is none of the runs that are compared")


def _why_incomparable(base: RunCurve, run: RunCurve, axis: str, stage: str | None) -> list[str]:
    if len(run) == 0:
        where = f" in stage {stage!r}" if stage else ""
        diverged = f"no validation loss of {run.name}{where} is a number"
        return [diverged if run.diverged else f"{run.name} has no validation{where} yet"]
    if axis not in run.x:
        known = "how many FLOPs a token takes" if axis == "flops" else axis
        return [f"{run.name} does not say {known}"]
    return [
        f"{run.name} and {base.name} differ in the {what}"
        for what in differing(base.validation, run.validation)
        if what != "validation key" or len(differing(base.validation, run.validation)) == 1
    ]


def _by_seed(group: Group, axis: str, x: float, score: str = "loss") -> dict[int | None, float]:
    """The score of each seed at `x`; of those that haven't diverged and were there."""
    values = {run.seed: run.at(axis, x, score) for run in group.runs if not run.diverged}
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def _mean(group: Group, axis: str, x: float, score: str = "loss") -> float | None:
    values = list(_by_seed(group, axis, x, score).values())
    return float(np.mean(values)) if values else None


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _test(group: Group, base: Group, axis: str, x: float) -> Test | None:
    """The test that the seeds at hand allow; None for one seed each."""
    ours, theirs = _by_seed(group, axis, x), _by_seed(base, axis, x)
    matched = [seed for seed in ours if seed in theirs]
    if len(matched) >= 2:
        return paired_test([ours[seed] for seed in matched], [theirs[seed] for seed in matched])
    one, other = list(ours.values()), list(theirs.values())
    if len(one) >= 2 and len(other) >= 2:
        return welch_test(one, other)
    if len(one) == 1 and len(other) >= 2:
        return single_test(one[0], other)
    if len(one) >= 2 and len(other) == 1:
        mirrored = single_test(other[0], one)
        low, high = mirrored.interval
        return Test(
            difference=-mirrored.difference,
            interval=(-high, -low),
            p_value=mirrored.p_value,
            freedom=mirrored.freedom,
            kind=mirrored.kind,
        )
    return None


def _standing(group: Group, base: Group, axis: str, x: float, test: Test | None, p_value: float | None) -> Standing:
    losses = list(_by_seed(group, axis, x).values())
    loss = _mean(group, axis, x)
    is_baseline = group is base
    difference = None if is_baseline else _minus(loss, _mean(base, axis, x))
    if test is not None:
        difference = test.difference
    needs = {unit: _needed(group, base, unit) for unit in ("tokens", "time")}
    speedups = {unit: _ratio(_needed(base, base, unit), needs[unit]) for unit in needs}
    settings = {
        key: group.runs[0].settings.get(key)
        for key in differing(base.runs[0].settings, group.runs[0].settings)
        if key not in WITHOUT_EFFECT
    }
    standing = Standing(
        name=group.name,
        runs=tuple(run.name for run in group.runs),
        seeds=len(group.runs),
        is_baseline=is_baseline,
        validation_loss=loss,
        deviation=float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        loss_interval=bootstrap_interval(losses),
        perplexity=None if loss is None else math.exp(min(loss, 700.0)),
        bits_per_byte=_mean(group, axis, x, "bits_per_byte"),
        accuracy=_mean(group, axis, x, "accuracy"),
        difference=difference,
        interval=None if test is None else test.interval,
        p_value=p_value,
        test=None if test is None else test.kind,
        seeds_needed=None if test is None else _seeds_needed(group, base, axis, x, test),
        needs=needs,
        speedup_tokens=speedups["tokens"],
        speedup_time=speedups["time"],
        parameters=group.runs[0].parameters,
        flops_per_token=group.runs[0].flops_per_token,
        difference_at_equal_flops=None if is_baseline else _difference_at_equal_flops(group, base),
        diverged=any(run.diverged for run in group.runs),
        settings=settings,
        verdict="",
    )
    return standing if is_baseline else replace(standing, verdict=verdict_of(standing, base, group))


def _needed(group: Group, base: Group, unit: str) -> float | None:
    """How much of `unit` the group's mean curve takes to the loss with which the baseline's mean curve ends.

    0 when it was there at its first validation already: how long before can't be told.
    """
    if any(unit not in run.x or run.diverged for run in (*group.runs, *base.runs)):
        return None
    _, base_losses = mean_curve(base.runs, unit)
    x, losses = mean_curve(group.runs, unit)
    if not len(x) or not len(base_losses):
        return None
    target = float(base_losses[-1])
    return 0.0 if group is not base and losses[0] <= target else first_reached(x, losses, target)


def _ratio(base: float | None, ours: float | None) -> float | None:
    return base / ours if base is not None and ours else None


def _seeds_needed(group: Group, base: Group, axis: str, x: float, test: Test) -> int | None:
    ours, theirs = _by_seed(group, axis, x), _by_seed(base, axis, x)
    matched = [seed for seed in ours if seed in theirs]
    if test.kind == "paired":
        deviation = float(np.std([ours[seed] - theirs[seed] for seed in matched], ddof=1))
    else:
        spreads = [np.var(list(values.values()), ddof=1) for values in (ours, theirs) if len(values) > 1]
        deviation = math.sqrt(float(np.mean(spreads)))
    return seeds_needed(test.difference, deviation, paired=test.kind == "paired")


def _difference_at_equal_flops(group: Group, base: Group) -> float | None:
    if any("flops" not in run.x or run.diverged for run in (*group.runs, *base.runs)):
        return None
    x = min(run.span("flops")[1] for run in (*group.runs, *base.runs))
    return _minus(_mean(group, "flops", x), _mean(base, "flops", x))


def _notes(curves: Sequence[RunCurve], axis: str, x: float) -> list[str]:
    """What a reader should know before believing the table."""
    notes = []
    longest = max(run.span(axis)[1] for run in curves)
    for run in curves:
        if run.diverged:
            notes.append(f"{run.name} has diverged: its newest validation loss is not a number")
        elif run.summary.state in ("lost", "failed", "stopped") and run.span(axis)[1] < longest:
            notes.append(f"{run.name} is {run.summary.state} and ended early: all are compared where it ended")
        elif run.summary.status.active or run.summary.state == "queued":
            notes.append(f"{run.name} is {run.summary.state}: this is how things stand now")
    if longest > x * 1.02 and not notes:
        shortest = min(curves, key=lambda run: run.span(axis)[1])
        notes.append(f"{shortest.name} went the least far: all are compared where it ended")
    return notes


def _early(standings: Sequence[Standing]) -> list[str]:
    base = standings[0].name
    return [
        f"{standing.name} had reached the loss with which {base} ends by its first validation: no speed-up can be given"
        for standing in standings[1:]
        if standing.needs["tokens"] == 0
    ]
