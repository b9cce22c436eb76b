"""From what a run logged to charts: any figure by name over steps, samples, tokens or time, with borders and events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lmplay.stats.history import Rows
from lmplay.stats.parse import Floats
from lmplay_tui.chart.data import ChartData, Curve, Event, EventKind
from lmplay_tui.services.run_feed import RunPicture

X_AXES = ("step", "samples", "tokens", "time")
MACHINE_FIGURES = {
    # figure: (key of a row of system.jsonl, divided by)
    "memory (GiB)": ("process_memory", 2.0**30),
    "cpu of the worker (%)": ("process_cpu", 1.0),
    "cpu (%)": ("cpu", 1.0),
}
GPU_FIGURES = {
    "gpu (%)": ("use", 1.0),
    "gpu memory (GiB)": ("memory_used", 2.0**30),
    "gpu power (W)": ("power", 1.0),
    "gpu temperature (C)": ("temperature", 1.0),
}
COUNTERS = frozenset({"step", "samples", "tokens", "time", "clock", "kind"})
_X_WORDS = {"step": "steps", "seconds of training": "time of training", "time": "time of training"}
_SMALL_TITLES = {"tokens_per_second": "tokens/s", "grad_norm": "gradient norm", "lr": "learning rate"}


def figure_title(name: str) -> str:
    return _SMALL_TITLES.get(name, name)


def over(x_name: str) -> str:
    """What a chart's title says of its x axis."""
    return f"over {_X_WORDS.get(x_name, x_name)}"


def known_figures(picture: RunPicture) -> list[str]:
    """What can be shown of this run, the usual ones first."""
    usual = ["loss", "lr", "grad_norm", "tokens_per_second", "perplexity", "bits_per_byte", "accuracy"]
    logged = [name for name in picture.figures if name not in COUNTERS]
    machine = list(MACHINE_FIGURES) if picture.system else []
    if any(row.get("gpus") for row in picture.system[-1:]):
        machine += list(GPU_FIGURES)
    return [*(name for name in usual if name in logged), *(name for name in logged if name not in usual), *machine]


def chart_of(picture: RunPicture, figure: str, x_axis: str = "step") -> ChartData:
    """One figure of one run: training and validation where both log it."""
    curves: list[Curve] = []
    if figure in MACHINE_FIGURES or figure in GPU_FIGURES:
        curves += _machine_curves(picture, figure, x_axis)
    if figure in picture.train:
        x = picture.train.column(x_axis)
        is_loss = figure == "loss"
        name = "train" if is_loss else figure_title(figure)
        curves.append(Curve(name=name, x=x, y=picture.train[figure], every_row=is_loss))
    if figure in picture.validate:
        x, y = picture.validate.column(x_axis), picture.validate[figure]
        name = "validation" if figure in picture.train else figure
        curves.append(Curve(name=name, x=x, y=y, series=1, kind="points"))
    return ChartData(
        curves=tuple(curves),
        x_name=x_axis,
        borders=stage_borders(picture.train, x_axis),
        events=chart_events(picture.events, picture.train, x_axis),
    )


def charts_of(picture: RunPicture, figures: Iterable[str], x_axis: str = "step") -> dict[str, ChartData]:
    """Several of them. For a run of a million rows this takes some time, and is called in a thread."""
    return {figure: chart_of(picture, figure, x_axis) for figure in figures}


def stage_borders(train: Rows, x_axis: str) -> tuple[tuple[float, str], ...]:
    """Where each stage but the first begins."""
    if len(train.stages) < 2:
        return ()
    stage, x = train.stage, train.column(x_axis)
    changes = np.flatnonzero(np.diff(stage) != 0) + 1
    return tuple((float(x[place]), train.stages[stage[place]]) for place in changes if stage[place] >= 0)


_SHOWN: Mapping[str, tuple[EventKind, str]] = {
    "saved": ("saved", "saved"),
    "changed": ("changed", "changed"),
    "resumed": ("resumed", "went on"),
    "warning": ("warning", "warning"),
    "spike": ("warning", "spike"),
    "killed": ("died", "killed"),
    "failed": ("died", "failed"),
}


def chart_events(events: Sequence[Mapping[str, Any]], train: Rows, x_axis: str) -> tuple[Event, ...]:
    """What happened, at the x of its step."""
    found: list[tuple[float, EventKind, str]] = []
    for row in events:
        name, step = str(row.get("event")), row.get("step")
        if name == "accepted" and row.get("action") == "pause":
            shown: tuple[EventKind, str] | None = ("paused", "paused")
        else:
            shown = _SHOWN.get(name)
        if shown is not None and isinstance(step, int):
            found.append((float(step), shown[0], _words(shown[1], row)))
    if not found:
        return ()
    places = _at_steps(np.array([step for step, _, _ in found]), train, x_axis)
    return tuple(
        Event(x=float(x), kind=kind, text=text)
        for x, (_, kind, text) in zip(places, found, strict=True)
        if np.isfinite(x)
    )


def place_of_event(picture: RunPicture, x_axis: str, index: int) -> float | None:
    """The x of an event, by its place among them; None where it has no step."""
    step = picture.events[index].get("step") if index < len(picture.events) else None
    if not isinstance(step, int):
        return None
    place = float(_at_steps(np.array([float(step)]), picture.train, x_axis)[0])
    return place if np.isfinite(place) else None


def nearest_event(picture: RunPicture, x_axis: str, x: float) -> int | None:
    """The event nearest to an x, by its place among all; of several the first."""
    known = [(index, row["step"]) for index, row in enumerate(picture.events) if isinstance(row.get("step"), int)]
    if not known:
        return None
    distances = np.abs(_at_steps(np.array([float(step) for _, step in known]), picture.train, x_axis) - x)
    return None if np.isnan(distances).all() else known[int(np.nanargmin(distances))][0]


def _words(word: str, row: Mapping[str, Any]) -> str:
    if word == "changed" and isinstance(row.get("changes"), Mapping):
        return ", ".join(f"{key}={value}" for key, value in row["changes"].items())
    if word in ("warning", "spike"):
        return str(row.get("message") or row.get("reason") or word)
    return f"{word} at step {row.get('step'):,}"


def _at_steps(steps: Floats, train: Rows, x_axis: str) -> Floats:
    if x_axis == "step":
        return steps
    known, x = train.column("step"), train.column(x_axis)
    return np.interp(steps, known, x) if len(known) else np.full(len(steps), np.nan)


def _machine_curves(picture: RunPicture, figure: str, x_axis: str) -> list[Curve]:
    """Figures of the machine carry the time of the day; training rows tell which step that was."""
    clock, place = picture.train.column("clock"), picture.train.column(x_axis)
    known = np.isfinite(clock) & np.isfinite(place)
    clock, place = clock[known], place[known]
    rows = [row for row in picture.system if isinstance(row.get("clock"), int | float)]
    if not rows or not len(clock):
        return []
    times = np.array([float(row["clock"]) for row in rows])
    during = (times >= clock[0]) & (times <= clock[-1])
    x = np.interp(times[during], clock, place)
    if figure in MACHINE_FIGURES:
        key, unit = MACHINE_FIGURES[figure]
        y = np.array([_number(row.get(key)) for row in rows])[during] / unit
        return [Curve(name=figure, x=x, y=y)]
    key, unit = GPU_FIGURES[figure]
    count = max(len(row.get("gpus") or ()) for row in rows)
    curves = []
    for index in range(count):
        cards = [row.get("gpus") or () for row in rows]
        y = np.array([_number(card[index].get(key)) if index < len(card) else np.nan for card in cards])[during] / unit
        curves.append(Curve(name=f"gpu {index}" if count > 1 else figure, x=x, y=y, series=index))
    return curves


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
