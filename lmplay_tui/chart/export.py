"""What a chart shows, as CSV: the points in view, raw and smoothed."""

from __future__ import annotations

import csv
import io
import math

import numpy as np

from lmplay.stats.smoothing import smooth
from lmplay_tui.chart.data import ChartData
from lmplay_tui.chart.view import View


def to_csv(data: ChartData, view: View) -> str:
    """One row a point: curve, x, value, smoothed (empty for curves that are not smoothed)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["curve", data.x_name, "value", "smoothed"])
    low, high = view.x_window or (-math.inf, math.inf)
    for curve in data.curves:
        span = view.smoothing_for(len(curve.y)) if curve.kind == "line" else 1.0
        smoothed = smooth(curve.y, span) if span > 1 else None
        inside = np.flatnonzero((curve.x >= low) & (curve.x <= high))
        for index in inside.tolist():
            even = "" if smoothed is None else f"{smoothed[index]:.9g}"
            writer.writerow([curve.name, f"{curve.x[index]:.12g}", f"{curve.y[index]:.9g}", even])
    return text.getvalue()
