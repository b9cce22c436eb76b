"""The tables and charts of a comparison: where each group stands, in what the runs differ, the curves."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from lmplay.runs import differing
from lmplay.stats.curves import WITHOUT_EFFECT
from lmplay.stats.figure_data import AXIS_LABELS
from lmplay.stats.standing import Standing
from lmplay.utils.figures import format_count, format_seconds
from lmplay_tui.chart.data import ASCII_MARKS, MARKS, ChartData, Curve
from lmplay_tui.columns import Column
from lmplay_tui.figures import short_number, state_sign
from lmplay_tui.lines import Line, line, wrapped
from lmplay_tui.services.comparison import Compared
from lmplay_tui.theme import series_ink
from lmplay_tui.widgets.grid import Row

RESULT_COLUMNS = (
    Column(key="mark", least=2, most=2),
    Column(key="name", title="group or run", flex=1, least=22, most=60, ends=True),
    Column(key="seeds", title="seeds", align="right", least=5, most=5, rank=6),
    Column(key="loss", title="valid. loss", align="right", least=9, most=17),
    Column(key="difference", title="difference", align="right", least=8, most=10),
    Column(key="interval", title="95% interval", align="right", least=12, most=24, rank=3),
    Column(key="p", title="p", align="right", least=4, most=7, rank=5),
    Column(key="tokens", title="tokens to", align="right", least=8, most=10, rank=2, help="the baseline's last loss"),
    Column(key="speedup", title="x tokens", align="right", least=7, most=8, rank=1),
    Column(key="time", title="x time", align="right", least=6, most=8, rank=4),
    Column(key="bits", title="bits/byte", align="right", least=7, most=9, rank=7),
    Column(key="parameters", title="params", align="right", least=6, most=8, rank=2),
)


def result_rows(compared: Compared, series: Mapping[str, int], *, ascii_only: bool = False) -> list[Row]:
    """A row a group, the baseline first; below a group of seeds its runs. Keys are names of runs, or `group:<name>`."""
    result = compared.result
    if result is None:
        return []
    if not result.comparable:
        # Nothing to hold against each other: the runs alone, so that one can be taken out.
        return [_run_row(curve.name, compared, series, indent="", ascii_only=ascii_only) for curve in compared.curves]
    rows: list[Row] = []
    for standing in result.standings:
        single = len(standing.runs) == 1
        key = standing.runs[0] if single else f"group:{standing.name}"
        rows.append(Row(key, _standing_cells(standing, series, ascii_only=ascii_only)))
        if not single:
            rows += [_run_row(name, compared, series, indent="  ", ascii_only=ascii_only) for name in standing.runs]
    shown = {row.key for row in rows}
    left_out = [curve.name for curve in compared.curves if curve.name not in shown]
    return rows + [_run_row(name, compared, series, indent="", ascii_only=ascii_only) for name in left_out]


def _standing_cells(standing: Standing, series: Mapping[str, int], *, ascii_only: bool) -> tuple[Line, ...]:
    number = series.get(standing.runs[0], 0)
    marks = ASCII_MARKS if ascii_only else MARKS
    star = ("B" if ascii_only else "★") if standing.is_baseline else marks[number % len(marks)]
    loss = "diverged" if standing.diverged else _plain(standing.validation_loss, ".4f")
    spread = f" ± {standing.deviation:.4f}" if standing.deviation is not None else ""
    difference: Line = line(("baseline", "muted"))
    if not standing.is_baseline:
        sure = standing.p_value is not None and standing.p_value < 0.05
        better = standing.difference is not None and standing.difference < 0
        ink = ("good" if better else "bad") if sure else ""
        difference = line((_plain(standing.difference, "+.4f"), f"bold {ink}".strip()))
    interval = "" if standing.interval is None else f"{standing.interval[0]:+.4f} .. {standing.interval[1]:+.4f}"
    needed = standing.needs.get("tokens")
    return (
        line((star, f"bold {series_ink(number)}")),
        line((standing.name, "bold")),
        line((str(standing.seeds), "muted")),
        line((loss, "bad" if standing.diverged else "bold"), (spread, "muted")),
        difference,
        line((interval, "muted")),
        line((_plain(standing.p_value, ".2g"), "muted")),
        line((format_count(needed) if needed is not None else "", "muted")),
        line(_times(standing.speedup_tokens)),
        line(_times(standing.speedup_time)),
        line((_plain(standing.bits_per_byte, ".4f"), "muted")),
        line((format_count(standing.parameters) if standing.parameters else "", "muted")),
    )


def _run_row(name: str, compared: Compared, series: Mapping[str, int], *, indent: str, ascii_only: bool) -> Row:
    curve = next(curve for curve in compared.curves if curve.name == name)
    number = series.get(name, 0)
    marks = ASCII_MARKS if ascii_only else MARKS
    sign, ink = state_sign(curve.summary.state, ascii_only=ascii_only)
    at = compared.result.x if compared.result is not None else None
    loss = curve.at(compared.asked.axis, at) if at is not None and len(curve) else math.nan
    if not math.isfinite(loss):
        loss = float(curve.scores["loss"][-1]) if len(curve) else math.nan
    cells: list[Line] = [
        line((marks[number % len(marks)], series_ink(number))),
        line(indent, (f"{sign} ", ink), name),
        line((f"s{curve.seed}" if curve.seed is not None else "", "muted")),
        line(_plain(loss, ".4f")) if math.isfinite(loss) else line(("diverged" if curve.diverged else "", "bad")),
    ]
    return Row(name, (*cells, *((),) * (len(RESULT_COLUMNS) - len(cells))))


def _plain(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def setting_columns(compared: Compared) -> tuple[Column, ...]:
    """One column a group, after the key."""
    names = [group.name for group in compared.groups]
    return (
        Column(key="key", title="setting", least=16, most=40),
        *(Column(key=name, title=name, least=8, most=30, flex=1) for name in names),
    )


def setting_rows(compared: Compared) -> list[Row]:
    """Only the settings in which the groups differ."""
    groups = compared.groups
    if len(groups) < 2:
        return []
    settings = [group.runs[0].settings for group in groups]
    keys = dict.fromkeys(key for other in settings[1:] for key in differing(settings[0], other))
    rows = []
    for key in keys:
        if any(key not in one and _by_stage(one, key) for one in settings):
            continue  # where one run has it once and another by the stage, it is shown by the stage
        values = [_shown(one.get(key, one.get(key.partition(".")[2]))) for one in settings]
        ink = "muted" if key in WITHOUT_EFFECT else ""
        cells = [line((value, ink or ("" if value == values[0] else "accent"))) for value in values]
        rows.append(Row(key, (line((key, "muted")), *cells)))
    return rows


def _by_stage(settings: Mapping[str, object], key: str) -> bool:
    return key.startswith("train.") and any(other.endswith(f".{key}") for other in settings)


def _shown(value: object) -> str:
    return "-" if value is None else short_number(value) if isinstance(value, float) else str(value)


def words(compared: Compared, width: int) -> list[Line]:
    """The verdict, then what one should know before believing it."""
    width = max(20, width)
    if compared.result is None:
        return []  # the empty list of results says what to do
    result = compared.result
    found = wrapped(result.verdict, width, "bold" if result.comparable else "warn")
    for note in (*result.notes, *compared.problems):
        found += wrapped(f"note: {note}", width, "warn")
    return found


def title(compared: Compared) -> str:
    """Where the runs are compared."""
    result = compared.result
    if result is None or result.x is None:
        return "Compare"
    at = format_seconds(result.x) if result.axis == "time" else f"{format_count(result.x)} {AXIS_LABELS[result.axis]}"
    stage = f", stage {result.stage}" if result.stage else ""
    return f"Validation at {at}{stage}"


# ---- charts ----------------------------------------------------------------------------------------------------------


def training_chart(compared: Compared, series: Mapping[str, int]) -> ChartData:
    """The training loss of each run; runs of one group are named and coloured alike."""
    names = _group_names(compared)
    curves = [
        Curve(name=names.get(run, run), x=x, y=y, series=series.get(run, 0))
        for run, (x, y) in compared.training.items()
        if len(x)
    ]
    return ChartData(curves=tuple(curves), x_name=_x_name(compared))


def validation_chart(compared: Compared, series: Mapping[str, int]) -> ChartData:
    """The validation loss of each run."""
    axis, names = compared.asked.axis, _group_names(compared)
    curves = [
        Curve(
            name=names.get(curve.name, curve.name),
            x=curve.x[axis],
            y=curve.scores["loss"],
            series=series.get(curve.name, 0),
            kind="points",
        )
        for curve in compared.curves
        if axis in curve.x and len(curve)
    ]
    return ChartData(curves=tuple(curves), x_name=_x_name(compared))


def _group_names(compared: Compared) -> dict[str, str]:
    return {run.name: group.name for group in compared.groups for run in group.runs}


def difference_chart(compared: Compared, series: Mapping[str, int]) -> ChartData:
    """Each group minus the baseline, whose own line is zero."""
    first = {group.name: group.runs[0].name for group in compared.groups}
    curves: list[Curve] = []
    ends = [x[[0, -1]] for x, _ in compared.differences.values()]
    if ends and compared.result is not None:
        both = np.concatenate(ends)
        span = np.array([both.min(), both.max()])
        base = compared.result.baseline
        curves.append(Curve(name=base, x=span, y=np.zeros(2), series=series.get(first.get(base, base), 0)))
    curves += [
        Curve(name=name, x=x, y=y, series=series.get(first[name], 0), kind="points")
        for name, (x, y) in compared.differences.items()
    ]
    return ChartData(curves=tuple(curves), x_name=_x_name(compared))


def _x_name(compared: Compared) -> str:
    return AXIS_LABELS.get(compared.asked.axis, compared.asked.axis)


def series_of(compared: Compared, colours: Mapping[str, int]) -> dict[str, int]:
    """The colour of each run: that which one of its group was given, else the next that is free."""
    given = {
        group.name: next((colours[run.name] for run in group.runs if run.name in colours), None)
        for group in compared.groups
    }
    taken = {number for number in given.values() if number is not None}
    free = (number for number in range(len(given) + len(taken)) if number not in taken)
    found: dict[str, int] = {}
    for group in compared.groups:
        number = given[group.name]
        number = next(free) if number is None else number
        found |= {run.name: number for run in group.runs}
    return found
