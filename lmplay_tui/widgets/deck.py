"""One, two or four charts of a run: a large one, and small ones beside it."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Container, Vertical

from lmplay_tui.views.run_charts import figure_title, over
from lmplay_tui.widgets.chart import Chart
from lmplay_tui.widgets.pane import Pane, Split

_LOW = 15
"""Rows below which three small charts have hardly a curve each."""


class ChartDeck(Container):
    """`figures` names what each chart shows; `count` says how many are there."""

    DEFAULT_CSS = """
    ChartDeck { height: 1fr; width: 1fr; }
    ChartDeck Pane { padding: 0; }
    ChartDeck #side { display: none; }
    ChartDeck.-two #side, ChartDeck.-four #side { display: block; }
    ChartDeck.-two .third, ChartDeck.-low .third { display: none; }
    ChartDeck.-full .chart-pane { display: none; }
    ChartDeck.-full .chart-pane.-chosen { display: block; }
    ChartDeck.-full-main #side, ChartDeck.-full-side #first, ChartDeck.-full Divider { display: none; }
    """

    def __init__(self, figures: Sequence[str], *, count: int, style: str, share: float) -> None:
        super().__init__()
        self.figures = list(figures)
        self.all = [Chart(style=style, id=f"chart{index}") for index in range(4)]
        self.count = count if count in (1, 2, 4) else 4
        self._share = share
        self._full: Chart | None = None
        self._panes = [
            Pane(chart, title=figure_title(figure), classes="chart-pane" + (" third" if index > 1 else ""))
            for index, (chart, figure) in enumerate(zip(self.all, self.figures, strict=True))
        ]

    def compose(self) -> ComposeResult:
        yield Split(
            Container(self._panes[0], id="first"), Vertical(*self._panes[1:], id="side"), share=self._share, id="charts"
        )

    def on_mount(self) -> None:
        self.set_count(self.count)

    def on_resize(self) -> None:
        self.set_class(self.is_low, "-low")

    @property
    def is_low(self) -> bool:
        """Too low for three charts above each other: of four, two are shown."""
        return self.size.height < _LOW

    @property
    def next_count(self) -> int:
        """How many charts come after as many as there are."""
        return {1: 2, 2: 1 if self.is_low else 4}.get(self.count, 1)

    @property
    def main(self) -> Chart:
        return self.all[0]

    @property
    def shown(self) -> list[Chart]:
        """The charts that are there now; hidden ones are not drawn."""
        return self.all[: self.count] if self._full is None else [self._full]

    @property
    def is_full(self) -> bool:
        return self._full is not None

    def figure_of(self, chart: Chart) -> str:
        return self.figures[self.all.index(chart)]

    def set_x_axis(self, name: str) -> None:
        """Say over what the charts are drawn."""
        self._panes[0].entitle(subtitle=over(name))

    def set_figure(self, chart: Chart, figure: str) -> None:
        index = self.all.index(chart)
        self.figures[index] = figure
        self._panes[index].entitle(figure_title(figure))

    def set_count(self, count: int) -> None:
        self.count = count
        self.set_class(count == 2, "-two")
        self.set_class(count == 4, "-four")
        split = self.query_one("#charts", Split)
        split.set_alone(count == 1)
        if count == 1 and self.has_focus_within and not self.main.has_focus_within:
            self.main.focus()

    def full(self, chart: Chart) -> None:
        """This chart alone, or all of them again."""
        self._full = None if self._full is chart else chart
        index = self.all.index(chart)
        self.set_class(self.is_full, "-full")
        self.set_class(self.is_full and index == 0, "-full-main")
        self.set_class(self.is_full and index > 0, "-full-side")
        for pane, one in zip(self._panes, self.all, strict=True):
            pane.set_class(one is self._full, "-chosen")
        self.query_one("#charts", Split).set_alone(self.count == 1 or self.is_full)

    def forget(self) -> None:
        """Another run: nothing of the one before stays on the screen."""
        for chart in self.all:
            chart.look(chart.view.reset())
        self.say_reading(None)

    def say_reading(self, share: float | None) -> None:
        """In place of curves, that they are being read, and how far that is."""
        for chart in self.all:
            chart.show_empty("reading what was logged" + (f": {share:.0%}" if share else ""))
