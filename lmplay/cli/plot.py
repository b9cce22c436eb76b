"""`lmplay plot`: curves of runs as a picture file with its numbers beside it, or as a chart in the terminal."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lmplay.cli.compare import RUNS_HELP
from lmplay.runs.labels import resolve_runs
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import write_atomically

if TYPE_CHECKING:
    from rich.text import Text

    from lmplay.stats.figure_data import GroupSeries

_TERMINAL_COLOURS = ("blue", "yellow", "green", "magenta", "cyan", "red", "white")


def register(app: typer.Typer) -> None:
    app.command("plot")(plot)


def plot(
    runs: list[str] = typer.Argument(metavar="RUN|GROUP...", help=RUNS_HELP),
    output: Path | None = typer.Option(
        None,
        "--output",
        "-o",
        help="Picture to write: .png, .svg or .pdf; its numbers go beside it as .csv. [a chart in the terminal]",
    ),
    y: str = typer.Option("loss", help="Figure to draw; any that the runs have logged: loss, lr, grad_norm, ..."),
    x: str = typer.Option("tokens", help="Axis: tokens, samples, steps, time or flops."),
    baseline: str | None = typer.Option(None, help="Run or group from which differences are taken. [the first]"),
    stage: str | None = typer.Option(None, help="Only this stage of the plan, counted from its beginning."),
    smooth: float | None = typer.Option(
        None, min=1.0, help="Rows to smooth over. [1% of a run's rows, more of a short run]"
    ),
    log_x: bool = typer.Option(False, "--log-x", help="Logarithmic x axis."),
    log_y: bool = typer.Option(False, "--log-y", help="Logarithmic y axis."),
    title: str = typer.Option("", help="Title of the picture."),
    size: str = typer.Option("8x6", help="Width and height of the picture in inches."),
    width: int | None = typer.Option(None, min=30, help="Columns of the chart in the terminal. [as wide as it is]"),
    height: int = typer.Option(20, min=6, help="Rows of the chart in the terminal."),
) -> None:
    """Draw runs: raw behind smoothed training loss, validation, bands over seeds, the difference from the baseline."""
    from lmplay.stats.curves import AXES
    from lmplay.stats.figure_data import to_csv

    if x not in AXES:
        raise WrongUsageError(f"--x {x}: there are {', '.join(AXES)}")
    inches = _inches(size)
    groups = _load(runs, baseline=baseline, axis=x, value=y, span=smooth, stage=stage)
    if output is None:
        _draw_in_terminal(groups, x, y, width or shutil.get_terminal_size((100, 24)).columns, height, log_x, log_y)
        return
    from lmplay.stats.pictures import save_picture

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_picture(groups, output, axis=x, value=y, log_x=log_x, log_y=log_y, title=title, size=inches)
        write_atomically(output.with_suffix(".csv"), to_csv(groups, axis=x, value=y), durable=False)
    except OSError as error:
        raise LMPlayError(f"{output} can't be written: {error.strerror}") from error
    typer.echo(f"{output} and {output.with_suffix('.csv').name}")


def _load(
    names: Sequence[str], *, baseline: str | None, axis: str, value: str, span: float | None, stage: str | None
) -> list[GroupSeries]:
    from lmplay.stats.compare import group_by_seed
    from lmplay.stats.figure_data import group_series, load_series

    paths = resolve_runs([*([baseline] if baseline else []), *names])
    series = {path.name: load_series(path, axis=axis, value=value, span=span, stage=stage) for path in paths}
    groups = group_by_seed([one.curve for one in series.values()])
    return group_series(groups, series, axis=axis, score=value)


def _draw_in_terminal(
    groups: list[GroupSeries], axis: str, value: str, width: int, height: int, log_x: bool, log_y: bool
) -> None:
    import numpy as np
    from rich.console import Console
    from rich.text import Text

    from lmplay.stats.terminal_chart import ChartSeries, draw_chart

    series, owners = [], []
    for index, group in enumerate(groups):
        for run in group.runs:
            series.append(ChartSeries(name=run.curve.name, x=run.x, y=run.smoothed))
            owners.append(index)
        validated = len(group.x) > 1 or any(len(run.validation_x) for run in group.runs)
        if value in ("loss", "bits_per_byte", "accuracy") and validated and not any(len(run.x) for run in group.runs):
            series.append(ChartSeries(name=group.name, x=group.x, y=group.mean))
            owners.append(index)
    if not any(np.isfinite(one.y).any() for one in series):
        raise LMPlayError(f"there is no {value} to draw yet")
    console = Console(highlight=False, width=width)
    chart = draw_chart(series, width=width, height=height, log_x=log_x, log_y=log_y)
    styled = console.is_terminal
    console.print(Text(f"{value}, smoothed, over {axis}", style="bold" if styled else ""))
    for row, row_owners in zip(chart.rows, chart.owners, strict=True):
        console.print(_painted(row, [owners[owner] if owner >= 0 else -1 for owner in row_owners], styled))
    for index, group in enumerate(groups):
        seeds = f" ({len(group.runs)} seeds)" if len(group.runs) > 1 else ""
        last = group.mean[-1] if len(group.mean) else math.nan
        ends = f"  validation {last:.4f}" if math.isfinite(last) and value == "loss" else ""
        mark = Text("── ", style=_TERMINAL_COLOURS[index % len(_TERMINAL_COLOURS)] if styled else "")
        console.print(Text.assemble(mark, f"{group.name}{seeds}{ends}"), soft_wrap=True)


def _painted(row: str, owners: Sequence[int], styled: bool) -> Text:
    from rich.text import Text

    text = Text(row, no_wrap=True)
    if styled:
        for column, owner in enumerate(owners):
            if owner >= 0:
                text.stylize(_TERMINAL_COLOURS[owner % len(_TERMINAL_COLOURS)], column, column + 1)
    return text


def _inches(size: str) -> tuple[float, float]:
    try:
        width, height = (float(part) for part in size.lower().split("x"))
    except ValueError:
        raise WrongUsageError(f"--size {size}: give width and height in inches, for example 8x6") from None
    if not (1 <= width <= 100 and 1 <= height <= 100):
        raise WrongUsageError(f"--size {size}: each side is between 1 and 100 inches")
    return width, height
