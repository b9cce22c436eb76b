"""Pictures for papers, with matplotlib (extra `plot`): the curves, and below them the difference from the baseline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmplay.stats.figure_data import AXIS_LABELS, GroupSeries
from lmplay.stats.ticks import tick_label, ticks
from lmplay.utils.errors import LMPlayError, WrongUsageError

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, which colour-blind readers can tell apart; line styles go on where they end.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")
_NAMES = {"loss": "loss (nats)", "lr": "learning rate", "bits_per_byte": "bits per byte"}


def save_picture(
    groups: Sequence[GroupSeries],
    file: Path,
    *,
    axis: str = "tokens",
    value: str = "loss",
    log_x: bool = False,
    log_y: bool = False,
    title: str = "",
    size: tuple[float, float] = (8.0, 6.0),
) -> None:
    """Draw `groups`, the baseline first, into a PNG, SVG or PDF file; by its name."""
    if file.suffix.lower() not in FORMATS:
        raise WrongUsageError(f"{file.name}: pictures are {', '.join(FORMATS)}")
    with _matplotlib() as pyplot:
        differences = [group for group in groups if len(group.difference)]
        figure, panels = pyplot.subplots(
            2 if differences else 1,
            1,
            sharex=True,
            squeeze=False,
            figsize=size,
            layout="constrained",
            gridspec_kw={"height_ratios": [3, 1.2]} if differences else None,
        )
        curves = panels[0][0]
        for index, group in enumerate(groups):
            _draw_group(curves, group, index)
        _draw_borders(curves, groups)
        curves.set_ylabel(_NAMES.get(value, value.replace("_", " ")))
        legend = curves.legend(frameon=False, title=_how_to_read(groups), title_fontsize="small")
        legend.get_title().set_color("0.4")
        if title:
            curves.set_title(title)
        if log_y:
            curves.set_yscale("log")
            _plain_numbers(curves.yaxis)
        if differences:
            below = panels[1][0]
            below.axhline(0.0, color=_COLOURS[0], linewidth=1)
            for index, group in enumerate(groups):
                if len(group.difference):
                    look = {"color": _colour(index), "linestyle": _style(index)}
                    if len(group.runs) > 1:
                        band = (group.difference_low, group.difference_high)
                        below.fill_between(group.difference_x, *band, color=look["color"], alpha=0.2, linewidth=0)
                    below.plot(group.difference_x, group.difference, linewidth=1.5, marker=".", markersize=4, **look)
            below.set_ylabel("difference")
            # Along the axis there is no room for the name that a run is given by itself.
            below.set_title(f"minus {groups[0].name}", loc="left", fontsize="small", color="0.4")
        bottom = panels[-1][0]
        bottom.set_xlabel(AXIS_LABELS[axis])
        if log_x:
            # What has no place there, as the validation before the first step, is left out, not moved to the edge.
            bottom.set_xscale("log", nonpositive="mask")
        _plain_numbers(bottom.xaxis)
        for panel in panels[:, 0]:
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
        _limit_to_what_matters(curves, groups, log_y)
        try:
            figure.savefig(file, dpi=160)
        except OSError as error:
            raise LMPlayError(f"{file} can't be written: {error.strerror}") from error
        finally:
            pyplot.close(figure)


def _draw_group(panel: Any, group: GroupSeries, index: int) -> None:
    """Raw training rows dim, smoothed over them, validations as points; a band over the seeds and their mean."""
    look = {"color": _colour(index), "linestyle": _style(index)}
    for run in group.runs:
        panel.plot(run.x, run.raw, color=look["color"], alpha=0.15, linewidth=0.6, rasterized=True)
        alone = len(group.runs) == 1
        panel.plot(run.x, run.smoothed, linewidth=1.4 if alone else 0.8, alpha=0.8 if alone else 0.35, **look)
    if len(group.runs) > 1 and len(group.x):
        panel.fill_between(group.x, group.low, group.high, color=look["color"], alpha=0.2, linewidth=0)
        panel.plot(group.x, group.mean, color=look["color"], marker="o", markersize=3, linewidth=1.2)
    else:
        for run in group.runs:
            panel.plot(
                run.validation_x, run.validation, color=look["color"], linestyle="none", marker="o", markersize=3
            )
    seeds = f" ({len(group.runs)} seeds)" if len(group.runs) > 1 else ""
    panel.plot([], [], linewidth=1.5, marker="o", markersize=3, label=f"{group.name}{seeds}", **look)


def _how_to_read(groups: Sequence[GroupSeries]) -> str | None:
    """What lines and points are, where both are there."""
    runs = [run for group in groups for run in group.runs]
    if not any(len(run.x) for run in runs) or not any(len(run.validation_x) for run in runs):
        return None
    return "lines: training, points: validation"


def _draw_borders(panel: Any, groups: Sequence[GroupSeries]) -> None:
    drawn: set[tuple[str, float]] = set()
    for group in groups:
        for run in group.runs:
            drawn.update(run.borders)
    for name, place in sorted(drawn, key=lambda border: border[1]):
        panel.axvline(place, color="0.5", linewidth=0.8, linestyle=":")
        panel.annotate(
            name,
            (place, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -10),
            textcoords="offset points",
            color="0.4",
        )


def _limit_to_what_matters(panel: Any, groups: Sequence[GroupSeries], log_y: bool) -> None:
    """The smoothed curves and validations decide the height, so that one spike of raw loss doesn't flatten the rest."""
    import numpy as np

    values = [array for group in groups for run in group.runs for array in (run.smoothed, run.validation)]
    finite = np.concatenate([array[np.isfinite(array)] for array in values]) if values else np.empty(0)
    if log_y:
        finite = finite[finite > 0]
    if len(finite) and finite.min() < finite.max():
        low, high = float(finite.min()), float(finite.max())
        margin = 0.05 * (high - low)
        panel.set_ylim(low / 1.03 if log_y else low - margin, high * 1.03 if log_y else high + margin)
        if log_y:
            panel.set_yticks(ticks(low, high, 6, log=True))


def _plain_numbers(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value)))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _style(index: int) -> str:
    return _STYLES[index // len(_COLOURS) % len(_STYLES)]


@contextlib.contextmanager
def _matplotlib() -> Iterator[Any]:
    """pyplot without a screen; text in SVG and PDF stays text, and the same picture is the same file."""
    try:
        import matplotlib
        from matplotlib import pyplot
    except ImportError as error:
        raise LMPlayError(
            "pictures need matplotlib: pip install 'lmplay[plot]' (without a file name, plot draws in the terminal)"
        ) from error
    settings: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "lmplay", "font.size": 10}
    with matplotlib.rc_context(settings):
        matplotlib.use("Agg")
        yield pyplot
