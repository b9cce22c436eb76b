"""What every screen with charts does for them: typed limits, and the characters that they are drawn with."""

from __future__ import annotations

import math
from dataclasses import replace

from lmplay_tui.chart.picture import SIGNS
from lmplay_tui.dialogs.asking import TextDialog
from lmplay_tui.screens.base import WorkbenchScreen
from lmplay_tui.widgets.chart import Chart


class ChartingScreen(WorkbenchScreen):
    @property
    def chart_signs(self) -> str:
        """The key of `SIGNS` by which charts are drawn."""
        kept = self.workbench.state.get("chart.signs", "braille")
        return "ascii" if self.workbench.options.ascii or kept not in SIGNS else kept

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._draw_charts_alike()

    def serve_chart(self, event: Chart.Wanted) -> bool:
        """Do what a chart wants if it is the same on every screen; False where the screen has to."""
        if event.what == "limits":
            self.run_worker(self._ask_limits(event.chart), group="dialog")
        elif event.what == "signs":
            names = list(SIGNS)
            following = names[(names.index(self.chart_signs) + 1) % len(names)]
            self.workbench.state.set("chart.signs", following)
            self._draw_charts_alike()
            self.notify(f"drawn with {following}", timeout=2)
        else:
            return False
        return True

    def _draw_charts_alike(self) -> None:
        for chart in self.query(Chart):
            chart.set_signs(self.chart_signs)

    async def _ask_limits(self, chart: Chart) -> None:
        if chart.picture is None:
            return
        low, high = chart.y_limits
        text = "The lowest and the highest value of the y axis. Nothing: they follow the data."
        typed = await self.app.push_screen_wait(
            TextDialog("Limits", text, value=f"{low:.4g} {high:.4g}", problem=_why_no_limits)
        )
        if typed is not None:
            window = limits_of(typed)
            chart.look(replace(chart.view, y_window=window), tell=True)


def limits_of(typed: str) -> tuple[float, float] | None:
    """Two numbers, ascending; None for nothing. Raises `ValueError`."""
    if not typed:
        return None
    low, high = (float(part) for part in typed.replace(",", " ").split())
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(typed)
    return low, high


def _why_no_limits(typed: str) -> str:
    try:
        limits_of(typed)
    except ValueError:
        return "Two numbers, the smaller one first, for example: 2.5 6"
    return ""
