"""The line above a chart: its curves with their signs and newest values, or with those at the crosshair."""

from __future__ import annotations

import math

import numpy as np

from lmplay.stats.ticks import tick_label, time_label
from lmplay_tui.chart.data import COUNTED, TIMES, ChartData, Event, value_at
from lmplay_tui.chart.view import Limits
from lmplay_tui.figures import short_number
from lmplay_tui.lines import Line, joined, line, width_of
from lmplay_tui.theme import series_ink


def legend(data: ChartData, cursor: float | None, width: int, *, marks: str, event: str = "") -> Line:
    """The most that fits into `width` cells: left out first is what happened at the crosshair (`event`), then its
    place, then the names of the curves.
    """
    parts, bare = [], []
    for (name, series), values in _values(data, cursor).items():
        ink = series_ink(series)
        value = short_number(float(np.mean(values))) if values else "-"
        mark = marks[series % len(marks)]
        parts.append(line((f"{mark} {name} ", ink), (value, f"bold {ink}")))
        bare.append(line((f"{mark} ", ink), (value, f"bold {ink}")))
    where: Line = ()
    if cursor is not None:
        place = time_label(cursor) if data.x_name in TIMES else tick_label(cursor)
        place = tick_label(round(cursor)) if data.x_name in COUNTED else place
        where = line((f"{data.x_name} {place}", "accent"))
    happened = line((event, "accent")) if event else ()
    forms = ([where, happened, *parts], [where, *parts], parts, [where, *bare], bare)
    lines = [joined(form, ("  ", "")) for form in forms]
    return next((one for one in lines if width_of(one) <= width), lines[-1])


def _values(data: ChartData, cursor: float | None) -> dict[tuple[str, int], list[float]]:
    """(name, series) of the curves with their values at the crosshair, or at the end; curves of one name as one."""
    found: dict[tuple[str, int], list[float]] = {}
    for curve in data.curves:
        if cursor is None and curve.every_row and len(curve.y) and not math.isfinite(curve.y[-1]):
            found.setdefault((curve.name, curve.series), []).append(float(curve.y[-1]))
            continue
        point = value_at(curve, cursor if cursor is not None else math.inf)
        found.setdefault((curve.name, curve.series), []).extend([point[1]] if point is not None else [])
    return found


def event_near(events: tuple[Event, ...], x: float, window: Limits, columns: int) -> str:
    """What happened within a column of an x."""
    reach = (window[1] - window[0]) / max(1, columns)
    near = [event for event in events if abs(event.x - x) <= reach]
    return min(near, key=lambda event: abs(event.x - x)).text if near else ""
