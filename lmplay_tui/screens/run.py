"""Screen 4: one run. Its charts, its log, events, samples, checkpoints, settings, and the machine it runs on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.geometry import Size
from textual.widget import Widget

from lmplay.runs import RunSummary, resolve_run
from lmplay.utils.errors import LMPlayError
from lmplay_tui.actions import bindings_for
from lmplay_tui.dialogs.asking import Choices
from lmplay_tui.lines import Line, line
from lmplay_tui.screens.finding import FindingScreen
from lmplay_tui.services.run_feed import RunFeed, RunPicture
from lmplay_tui.services.run_store import Snapshot
from lmplay_tui.views.run import (
    CHECKPOINT_COLUMNS,
    CONFIG_COLUMNS,
    EVENT_COLUMNS,
    checkpoint_rows,
    config_rows,
    crosshair_line,
    event_rows,
    head_lines,
    machine_lines,
    nearest_row,
    sample_lines,
)
from lmplay_tui.views.run_charts import (
    X_AXES,
    chart_of,
    charts_of,
    figure_title,
    known_figures,
    nearest_event,
    place_of_event,
)
from lmplay_tui.views.run_log import RunLog
from lmplay_tui.widgets.chart import Chart
from lmplay_tui.widgets.deck import ChartDeck
from lmplay_tui.widgets.grid import Grid
from lmplay_tui.widgets.pane import Pane, Split
from lmplay_tui.widgets.tabs import Views
from lmplay_tui.widgets.text_view import TextView

_FIGURES = ["loss", "lr", "grad_norm", "tokens_per_second"]
_DISK_SECONDS = 3.0
"""Checkpoints are looked for so often, while they are on the screen."""


class RunScreen(FindingScreen):
    MODE = "run"
    HELP = "One run: its charts above; below its log, events, generated samples, checkpoints, settings and machine."
    BINDINGS = bindings_for("run", "steer")
    DEFAULT_CSS = """
    RunScreen #head { height: 4; padding: 0 1; overflow: hidden; }
    RunScreen.-short #head { height: 3; }
    RunScreen.-full #head, RunScreen.-full #below, RunScreen.-full-view ChartDeck { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.feed: RunFeed | None = None
        self.picture: RunPicture | None = None
        self._shown_number = -1
        self._summary: RunSummary | None = None
        self._disk_looked = -1e9
        self._shown_view: tuple[str, RunPicture, Size] | None = None
        self.run_log = RunLog()

    def compose_body(self) -> ComposeResult:
        state = self.workbench.state
        self.head = TextView(id="head")
        figures = [str(name) for name in state.get("run.figures", _FIGURES)]
        self.deck = ChartDeck(
            (figures + _FIGURES)[:4],
            count=state.get("run.charts", 4),
            style=self.chart_signs,
            share=state.get("layout.charts", 0.62),
        )
        self.log_view = TextView(id="log", focusable=True, follow=True)
        self.console = TextView(id="console", focusable=True, follow=True, wide=True)
        self.events = Grid(EVENT_COLUMNS, empty="nothing has happened yet", id="events")
        self.samples = TextView(id="samples", focusable=True)
        self.checkpoints = Grid(CHECKPOINT_COLUMNS, empty="no checkpoint yet; C saves one", id="checkpoints")
        self.config = Grid(CONFIG_COLUMNS, id="config")
        self.machine = TextView(id="machine", focusable=True)
        self.views = Views(
            {
                "log": ("Log", self.log_view),
                "console": ("Console", self.console),
                "events": ("Events", self.events),
                "samples": ("Samples", self.samples),
                "checkpoints": ("Checkpoints", self.checkpoints),
                "config": ("Config", self.config),
                "machine": ("Machine", self.machine),
            },
            id="views",
        )
        yield self.head
        yield Split(
            self.deck,
            Pane(self.views, id="below"),
            share=state.get("layout.run", 0.62),
            vertical=True,
            least=5,
            id="split",
        )

    def on_mount(self) -> None:
        super().on_mount()
        self.views.choose(self.workbench.state.get("run.view", "log"))
        self.deck.set_x_axis(self.x_axis)
        self.head.show([line(("reading the runs...", "muted"))])
        self.deck.main.focus()

    # ---- which run ---------------------------------------------------------------------------------------------------

    @property
    def steered(self) -> RunSummary | None:
        return self._summary

    def take(self, snapshot: Snapshot) -> None:
        wanted = self.workbench.marks.get("shown", "")
        summary = snapshot.get(wanted) if wanted else None
        if summary is None and wanted and (self.feed is None or self.feed.path.name != wanted):
            try:
                found = resolve_run(wanted, root=self.workbench.root)
                summary = snapshot.get(found.name)
            except LMPlayError as error:
                self.notify(str(error), severity="warning", timeout=6)
        if summary is None and not (self.feed is not None and self.feed.path.name == wanted):
            live = [run for run in snapshot.runs if run.status.active]
            summary = next(iter([*live, *snapshot.runs]), None)
        if summary is not None:
            self.workbench.marks.set("shown", summary.name)
            if self.feed is None or self.feed.path != summary.path:
                self._open(summary)
            self._know(summary)
        elif self.feed is None:
            self.head.show([line(("there is no run yet: 2 launches one", "muted"))])
            self.deck.main.show_empty("no run yet")
        else:
            gone = line((f"{self.feed.path.name} is gone: its folder was deleted or moved away", "bad"))
            self.head.show([gone, line(("the charts show what was known of it; [ and ] go to other runs", "muted"))])
            self._know(None)
            return
        if self.picture is None and self.feed is not None:
            self.deck.say_reading(self.feed.reading)
        self._show_head()

    def _know(self, summary: RunSummary | None) -> None:
        """What can be asked of the run, and with it the line of keys, goes with its state."""
        before, self._summary = self._summary, summary
        if (before and before.state) != (summary and summary.state):
            self.refresh_bindings()

    def _open(self, summary: RunSummary) -> None:
        self.feed, self.picture, self._shown_number = self.workbench.feeds.of(summary.path), None, -1
        self.run_log, self._shown_view = RunLog(), None
        self._disk_looked = -1e9
        self.deck.forget()

    def _go(self, step: int) -> None:
        snapshot = self.workbench.snapshot
        if snapshot is None or not snapshot.runs:
            return
        names = [run.name for run in snapshot.runs]
        shown = self.workbench.marks.get("shown", "")
        place = names.index(shown) if shown in names else -step
        self.workbench.marks.set("shown", names[(place + step) % len(names)])
        self.workbench.look_now()

    def action_next_run(self) -> None:
        self._go(1)

    def action_previous_run(self) -> None:
        self._go(-1)

    # ---- the tick ----------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        feed = self.feed
        if feed is None or self._summary is None:
            return
        self.workbench.requests.look()
        picture = await asyncio.to_thread(feed.look)
        if feed is not self.feed:
            return  # another run was chosen meanwhile
        self.picture = picture
        if picture.number != self._shown_number:
            wanted, x_axis = {chart: self.deck.figure_of(chart) for chart in self.deck.shown}, self.x_axis
            found = await asyncio.to_thread(charts_of, picture, wanted.values(), x_axis)
            if feed is not self.feed:
                return
            self._shown_number = picture.number
            with self.app.batch_update():
                for chart, figure in wanted.items():
                    if figure == self.deck.figure_of(chart) and x_axis == self.x_axis:
                        chart.show(found[figure])
        run_log = self.run_log
        await asyncio.to_thread(run_log.take, picture)
        if run_log is not self.run_log:
            return
        with self.app.batch_update():
            self._show_head()
            self._show_view()
        await self._look_at_disk()

    def _show_head(self) -> None:
        if self._summary is not None:
            asked = self.workbench.requests.of(self._summary.name)
            width = max(20, self.head.size.width)
            rows, ascii_only = self.head.size.height or 4, self.workbench.options.ascii
            at: Line = ()
            place = self.deck.main.view.cursor
            if place is not None and self.picture is not None:
                at = crosshair_line(self.picture, self.x_axis, place, width)
            self.head.show(head_lines(self._summary, asked, width, rows=rows, at=at, ascii_only=ascii_only))

    @property
    def x_axis(self) -> str:
        """What the charts are drawn over."""
        return self.workbench.state.get("run.x_axis", "step")

    def _show_charts(self) -> None:
        self.deck.set_x_axis(self.x_axis)
        if self.picture is not None:
            for chart in self.deck.shown:
                chart.show(chart_of(self.picture, self.deck.figure_of(chart), self.x_axis))

    def _show_view(self) -> None:
        """The view that is in sight; the others are filled when they come into sight."""
        picture, view = self.picture, self.views.chosen
        if picture is None:
            return
        what = (view, picture, self.views.size)
        if what == self._shown_view:
            return
        self._shown_view = what
        if view == "log":
            self.log_view.show(self.run_log.lines or [line(("no step yet", "muted"))])
        elif view == "console":
            printed = [line(text) for text in picture.log]
            self.console.show(printed or [line(("the worker has printed nothing: all is well", "muted"))])
        elif view == "events":
            self.events.show(event_rows(picture.events, self.events.size.width or 60))
        elif view == "samples":
            self.samples.show(sample_lines(picture.events, self.samples.size.width or 60))
        elif view == "machine":
            width = self.machine.size.width or 60
            self.machine.show(machine_lines(picture, width, ascii_only=self.workbench.options.ascii))

    async def _look_at_disk(self) -> None:
        view, feed = self.views.chosen, self.feed
        if view not in ("checkpoints", "config") or feed is None:
            return
        now = self.workbench.clock()
        if now - self._disk_looked < _DISK_SECONDS:
            return
        self._disk_looked = now
        if view == "checkpoints":
            self.checkpoints.show(await asyncio.to_thread(checkpoint_rows, feed.path))
        else:
            self.config.show(await asyncio.to_thread(config_rows, feed.path))

    @on(Views.Changed)
    def _view_changed(self, event: Views.Changed) -> None:
        self.workbench.state.set("run.view", event.name)
        self._disk_looked = -1e9
        self._show_view()
        self.workbench.look_now()

    def on_resize(self, event: Any) -> None:
        super().on_resize(event)
        self.call_after_refresh(self._show_head)
        self.call_after_refresh(self._show_view)

    @on(Split.Moved)
    def _split_moved(self, event: Split.Moved) -> None:
        self.workbench.state.set("layout.run" if event.split.id == "split" else "layout.charts", event.share)

    # ---- charts ------------------------------------------------------------------------------------------------------

    @on(Chart.Changed)
    def _chart_changed(self, event: Chart.Changed) -> None:
        """Charts of one run share crosshair and x axis; head and events tell what was logged nearest to it."""
        for chart in self.deck.all:
            if chart is not event.chart:
                chart.look(chart.view.over_the_same(event.view))
        self._show_head()
        self._go_to_crosshair(event.view.cursor)

    def _go_to_crosshair(self, place: float | None) -> None:
        """Log and events go to what is nearest to it."""
        picture = self.picture
        row = nearest_row(picture.train, self.x_axis, place) if picture is not None and place is not None else None
        if picture is None or place is None or row is None:
            self.log_view.mark(None)
            self.log_view.scroll_end(animate=False)
            return
        line_of_log = self.run_log.nearest(int(picture.train["step"][row]))
        if line_of_log is not None:
            self.log_view.show_marked(line_of_log)
        nearest = nearest_event(picture, self.x_axis, place)
        if nearest is not None:
            self.events.move_to(str(nearest))

    @on(Grid.Chosen, "#events")
    def _event_chosen(self, event: Grid.Chosen) -> None:
        """The crosshair goes to where it happened."""
        place = None if self.picture is None else place_of_event(self.picture, self.x_axis, int(event.key))
        if place is not None:
            main = self.deck.main
            self.remove_class("-full-view")
            main.look(replace(main.view, cursor=place), tell=True)
            main.focus()

    @on(Grid.Chosen, "#checkpoints")
    def _checkpoint_chosen(self, event: Grid.Chosen) -> None:
        """Talk to it."""
        if self.feed is not None and event.key.isdecimal():
            self.workbench.open_chat(f"{self.feed.path.name}@{event.key}")

    @on(Chart.Wanted)
    def _chart_wanted(self, event: Chart.Wanted) -> None:
        if self.serve_chart(event):
            return
        if event.what == "x_axis":
            now = self.x_axis
            following = X_AXES[(X_AXES.index(now) + 1) % len(X_AXES)] if now in X_AXES else "step"
            self.workbench.state.set("run.x_axis", following)
            for chart in self.deck.all:
                chart.look(chart.view.reset())
            self._show_charts()
            self.notify(f"x axis: {following}", timeout=2)
        elif event.what == "full":
            self._show_alone(event.chart)
        elif event.what == "figure":
            self.run_worker(self._choose_figure(event.chart), group="dialog")
        else:
            name = f"{self.feed.path.name if self.feed else 'run'}-{self.deck.figure_of(event.chart)}"
            self.workbench.export_chart(event.chart, name)

    def _show_alone(self, chart: Chart) -> None:
        """This chart on the whole screen, or everything again."""
        self.deck.full(chart)
        self.set_class(self.deck.is_full, "-full")
        self.query_one("#split", Split).set_alone(self.deck.is_full)
        self.call_after_refresh(self._show_head)  # it was fitted to no width while it wasn't there

    def bring_below(self) -> None:
        """The view below comes into sight, where a chart has the whole screen."""
        for chart in self.deck.shown if self.deck.is_full else ():
            self._show_alone(chart)

    async def _choose_figure(self, chart: Chart) -> None:
        if self.picture is None:
            return
        choices = [
            (name, figure_title(name) if figure_title(name) != name else "") for name in known_figures(self.picture)
        ]
        now = self.deck.figure_of(chart)
        chosen = await self.app.push_screen_wait(Choices("Figure", choices, chosen=now))
        if chosen:
            self.deck.set_figure(chart, chosen)
            self.workbench.state.set("run.figures", self.deck.figures)
            self._show_charts()

    def action_charts(self) -> None:
        self.bring_below()
        self.remove_class("-full-view")
        self.deck.set_count(self.deck.next_count)
        self.workbench.state.set("run.charts", self.deck.count)
        self._show_charts()

    # ---- other actions -----------------------------------------------------------------------------------------------

    @property
    def searched(self) -> Widget:
        return self.views.in_sight

    def action_view(self) -> None:
        self.bring_below()
        self.views.next()

    def action_full_view(self) -> None:
        self.toggle_class("-full-view")
        self.views.in_sight.focus()

    def action_mark(self) -> None:
        if self._summary is not None:
            self.workbench.toggle_mark(self._summary.name)

    def action_chat(self) -> None:
        if self._summary is not None:
            self.workbench.open_chat(self._summary.name)
