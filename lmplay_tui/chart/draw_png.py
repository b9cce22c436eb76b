"""`python -m lmplay_tui.chart.draw_png data.csv picture.png [--title TEXT] [--log-x] [--log-y] [--y LOW HIGH]`.

The table that a chart wrote as a picture. A process of its own, since the workbench imports no plotting library.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from lmplay_tui.chart.data import TIMES


def draw(
    source: Path,
    target: Path,
    *,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    y_limits: Sequence[float] | None = None,
) -> None:
    """Raw points dim, smoothed ones over them, one colour a curve."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    curves: dict[str, list[tuple[float, float, float | None]]] = {}
    with source.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        head = next(reader)
        for name, place, value, even in reader:
            curves.setdefault(name, []).append((float(place), float(value), float(even) if even else None))
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for index, (name, points) in enumerate(curves.items()):
        x, y = [point[0] for point in points], [point[1] for point in points]
        smoothed = [math.nan if point[2] is None else point[2] for point in points]
        colour = f"C{index}"
        if not all(math.isnan(value) for value in smoothed):
            axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(x, smoothed, color=colour, linewidth=1.6, label=name)
        else:
            axes.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.2, label=name)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(f"{head[1]} (s)" if head[1] in TIMES else head[1])
    axes.set_xscale("log" if log_x else "linear")
    axes.set_yscale("log" if log_y else "linear")
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(target, dpi=160)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--title", default="")
    parser.add_argument("--log-x", action="store_true")
    parser.add_argument("--log-y", action="store_true")
    parser.add_argument("--y", nargs=2, type=float, metavar=("LOW", "HIGH"))
    asked = parser.parse_args(arguments)
    try:
        draw(asked.source, asked.target, title=asked.title, log_x=asked.log_x, log_y=asked.log_y, y_limits=asked.y)
    except ImportError:
        print("matplotlib is not installed: pip install 'lmplay[plot]'", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
