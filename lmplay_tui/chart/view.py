"""How a chart is looked at: scales, smoothing, the part that is shown, the crosshair. Every change is a new `View`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

Limits = tuple[float, float]

SPANS = (0.0, 5.0, 20.0, 100.0, 500.0, 2000.0)
"""Rows to smooth over, from none up; `AUTO_SPAN` takes `AUTO_SHARE` of the rows that there are."""
AUTO_SPAN, AUTO_SHARE = -1.0, 0.025
_SMALLEST_SHARE = 1e-6


@dataclass(frozen=True, kw_only=True)
class View:
    """Windows are in the units of the data; None shows all there is. `cursor` is the x of the crosshair."""

    log_x: bool = False
    log_y: bool = False
    span: float = AUTO_SPAN
    x_window: Limits | None = None
    y_window: Limits | None = None
    cursor: float | None = None

    def smoothing_for(self, rows: int) -> float:
        """How many rows an average is taken over, out of `rows`."""
        return max(1.0, rows * AUTO_SHARE) if self.span == AUTO_SPAN else self.span

    def with_next_span(self, direction: int = 1) -> View:
        order = (AUTO_SPAN, *SPANS)
        return replace(self, span=order[(order.index(self.span) + direction) % len(order)])

    def zoomed(self, shown: Limits, factor: float, centre: float | None = None) -> View:
        """Show `factor` times as much of the x axis as `shown` is, around `centre` (the crosshair, or the middle)."""
        low, high = self._scaled(shown)
        middle = (low + high) / 2
        point = centre if centre is not None else self.cursor
        if point is not None and shown[0] <= point <= shown[1]:
            middle = self._scaled((point, point))[0]
        # The point stays where it is on the screen.
        share = (middle - low) / (high - low) if high > low else 0.5
        size = max((high - low) * factor, abs(middle) * _SMALLEST_SHARE, 1e-9)
        return replace(self, x_window=self._unscaled((middle - share * size, middle + (1 - share) * size)))

    def panned(self, shown: Limits, share: float) -> View:
        """Move the window by `share` of its width."""
        low, high = self._scaled(shown)
        move = (high - low) * share
        return replace(self, x_window=self._unscaled((low + move, high + move)))

    def moved(self, shown: Limits, columns: int, width: int) -> View:
        """Move the crosshair by so many of `width` columns; where there is none yet it appears at the right end."""
        low, high = self._scaled(shown)
        if self.cursor is None or not shown[0] <= self.cursor <= shown[1]:
            return replace(self, cursor=shown[1] if columns < 0 else shown[0])
        place = self._scaled((self.cursor, self.cursor))[0] + columns * (high - low) / max(1, width)
        return replace(self, cursor=self._unscaled((min(max(place, low), high),) * 2)[0])

    def over_the_same(self, other: View) -> View:
        """The x axis and the crosshair of another view, with one's own y axis and smoothing."""
        return replace(self, log_x=other.log_x, x_window=other.x_window, cursor=other.cursor)

    def reset(self) -> View:
        """Everything again: no windows, no crosshair; scales and smoothing stay."""
        return replace(self, x_window=None, y_window=None, cursor=None)

    def _scaled(self, limits: Limits) -> Limits:
        return (_log(limits[0]), _log(limits[1])) if self.log_x else limits

    def _unscaled(self, limits: Limits) -> Limits:
        return (10.0 ** limits[0], 10.0 ** limits[1]) if self.log_x else limits


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else -12.0
