"""Screen 5: marked runs on the same axes, held against a baseline at equal tokens, samples, steps, time or FLOPs."""

from __future__ import annotations

import asyncio
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Container

from lmplay_tui.actions import bindings_for
from lmplay_tui.screens.charting import ChartingScreen
from lmplay_tui.services.commands import CommandError
from lmplay_tui.services.comparison import Asked, Compared, ComparisonFeed, next_axis
from lmplay_tui.services.run_store import Snapshot
from lmplay_tui.views.compare import (
    RESULT_COLUMNS,
    difference_chart,
    result_rows,
    series_of,
    setting_columns,
    setting_rows,
    title,
    training_chart,
    validation_chart,
    words,
)
from lmplay_tui.views.run_charts import over
from lmplay_tui.widgets.chart import Chart
from lmplay_tui.widgets.grid import Grid
from lmplay_tui.widgets.pane import Pane, Split
from lmplay_tui.widgets.tabs import Views
from lmplay_tui.widgets.text_view import TextView

_EMPTY = "Mark runs with space on the list of runs (3), then come back."


class CompareScreen(ChartingScreen):
    MODE = "compare"
    HELP = (
        "The marked runs on the same axes. Runs that differ in the seed only are one group. Everything is read off "
        "validation at a common place; x changes at equal what, b makes the run under the cursor the baseline."
    )
    BINDINGS = bindings_for("compare")
    DEFAULT_CSS = """
    CompareScreen #charts { layout: horizontal; height: 1fr; }
    CompareScreen #charts Pane { padding: 0; margin-left: 1; }
    CompareScreen #charts #training-pane { margin-left: 0; }
    CompareScreen #words { height: auto; max-height: 6; }
    CompareScreen.-short #words { max-height: 4; }
    CompareScreen.-narrow #validation-pane { display: none; }
    CompareScreen.-full #below, CompareScreen.-full #words, CompareScreen.-full #charts Pane { display: none; }
    CompareScreen.-full #charts Pane.-chosen { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._feed = ComparisonFeed()
        self._compared: Compared | None = None
        self._shown = -1
        self._columns: tuple[str, ...] = ()

    def compose_body(self) -> ComposeResult:
        style = self.chart_signs
        self.training = Chart(style=style, id="training", empty="no run is marked")
        self.validation = Chart(style=style, id="validation", empty="no validation yet")
        self.difference = Chart(style=style, id="difference", empty="nothing to hold against each other")
        self.results = Grid(RESULT_COLUMNS, empty=_EMPTY, id="results")
        self.settings = Grid(RESULT_COLUMNS, empty="the groups differ in no setting", id="settings")
        self.views = Views({"results": ("Results", self.results), "settings": ("Settings that differ", self.settings)})
        self.words = TextView(id="words")
        self.below = Pane(self.words, self.views, title="Compare", id="below")
        charts = Container(
            Pane(self.training, title="training loss", id="training-pane"),
            Pane(self.validation, title="validation loss", id="validation-pane"),
            Pane(self.difference, title="difference from the baseline"),
            id="charts",
        )
        share = self.workbench.state.get("layout.compare", 0.5)
        yield Split(charts, self.below, share=share, vertical=True, least=6, id="split")

    def on_mount(self) -> None:
        super().on_mount()
        self.results.focus()

    # ---- the tick ----------------------------------------------------------------------------------------------------

    def _asked(self, snapshot: Snapshot) -> Asked:
        marks = self.workbench.marks
        runs = [snapshot.get(str(name)) for name in marks.get("marked", [])]
        return Asked(
            runs=tuple(run.path for run in runs if run is not None),
            baseline=marks.get("baseline", ""),
            axis=marks.get("axis", "tokens"),
            stage=marks.get("stage", "") or None,
        )

    async def look(self) -> None:
        snapshot = self.workbench.snapshot
        if snapshot is None:
            return
        compared = await asyncio.to_thread(self._feed.look, self._asked(snapshot))
        self._compared = compared
        if compared.number != self._shown:
            self._shown = compared.number
            with self.app.batch_update():
                self._show()

    def _show(self) -> None:
        compared = self._compared
        if compared is None:
            return
        ascii_only = self.workbench.options.ascii
        names = [curve.name for curve in compared.curves]
        colours = {str(name): int(number) for name, number in self.workbench.marks.get("colours", {}).items()}
        series = series_of(compared, colours)
        training = training_chart(compared, series)
        self.query_one("#training-pane", Pane).entitle(subtitle=over(training.x_name))
        self.training.show(training)
        self.validation.show(validation_chart(compared, series))
        self.difference.show(difference_chart(compared, series))
        self.below.entitle(title(compared))
        self.below.entitle(subtitle=f"{len(names)} runs, {len(compared.groups)} groups")
        width, most = self.words.size.width or 78, self.words.styles.max_height
        told = words(compared, width)
        if most is not None and len(told) > most.value:
            told = words(compared, width - 1)  # the bar by which they are scrolled takes a cell
        self.words.show(told)
        self.results.show(result_rows(compared, series, ascii_only=ascii_only), empty=_EMPTY)
        columns = setting_columns(compared)
        if tuple(column.key for column in columns) != self._columns:
            self._columns = tuple(column.key for column in columns)
            self.settings.set_columns(columns)
        self.settings.show(setting_rows(compared))

    def on_resize(self, event: Any) -> None:
        super().on_resize(event)
        self.call_after_refresh(self._show)

    @on(Split.Moved)
    def _split_moved(self, event: Split.Moved) -> None:
        self.workbench.state.set("layout.compare", event.share)

    @on(Grid.Chosen, "#results")
    def _chosen(self, event: Grid.Chosen) -> None:
        self.workbench.show_run(self._run_of(event.key))

    @on(Chart.Changed)
    def _chart_changed(self, event: Chart.Changed) -> None:
        """All three charts have the same x axis."""
        for chart in (self.training, self.validation, self.difference):
            if chart is not event.chart:
                chart.look(chart.view.over_the_same(event.view))

    @on(Chart.Wanted)
    def _chart_wanted(self, event: Chart.Wanted) -> None:
        if event.what == "x_axis":
            self.action_x_axis()
        elif event.what == "full":
            full = not self.has_class("-full")
            self.set_class(full, "-full")
            self.query_one("#split", Split).set_alone(full)
            for pane in self.query("#charts Pane"):
                pane.set_class(full and event.chart in pane.children, "-chosen")
        elif event.what == "export":
            self.workbench.export_chart(event.chart, f"compare-{event.chart.id}")
        else:
            self.serve_chart(event)

    # ---- actions -----------------------------------------------------------------------------------------------------

    def _run_of(self, key: str) -> str:
        """The run that a row stands for; of a group its first."""
        compared = self._compared
        if key.startswith("group:") and compared is not None:
            return next((group.runs[0].name for group in compared.groups if f"group:{group.name}" == key), key)
        return key

    def _changed(self) -> None:
        for chart in (self.training, self.validation, self.difference):
            chart.look(chart.view.reset())
        self.workbench.look_now()

    def action_x_axis(self) -> None:
        following = next_axis(self.workbench.marks.get("axis", "tokens"))
        self.workbench.marks.set("axis", following)
        self.notify(f"at equal {following}", timeout=2)
        self._changed()

    def action_baseline(self) -> None:
        if self.results.cursor is not None:
            name = self._run_of(self.results.cursor)
            self.workbench.marks.set("baseline", name)
            self.notify(f"{name} is the baseline", timeout=2)
            self._changed()

    def action_unmark(self) -> None:
        key, compared = self.results.cursor, self._compared
        if key is None or compared is None:
            return
        gone = {run.name for group in compared.groups if f"group:{group.name}" == key for run in group.runs} or {key}
        marks = self.workbench.marks
        marks.set("marked", [name for name in marks.get("marked", []) if name not in gone])
        self._changed()

    def action_stage(self) -> None:
        """The whole runs, then each stage."""
        if self._compared is None:
            return
        stages = ["", *self._compared.stages]
        now = self.workbench.marks.get("stage", "")
        following = stages[(stages.index(now) + 1) % len(stages)] if now in stages else ""
        self.workbench.marks.set("stage", following)
        self.notify(f"stage {following}" if following else "the whole runs", timeout=2)
        self._changed()

    def action_settings(self) -> None:
        self.views.next()

    def action_copy(self) -> None:
        self.run_worker(self._copy(), group="copy")

    async def _copy(self) -> None:
        compared = self._compared
        if compared is None or not compared.curves:
            return
        asked = compared.asked
        parts = [curve.name for curve in compared.curves] + ["--x", asked.axis, "--markdown"]
        parts += ["--baseline", compared.result.baseline] if compared.result is not None else []
        parts += ["--stage", asked.stage] if asked.stage else []
        try:
            self.workbench.copy(await self.workbench.commands.run("compare", *parts))
        except CommandError as error:
            self.notify(str(error), severity="error", timeout=8)
