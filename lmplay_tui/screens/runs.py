"""Screen 3: all runs, live; the queue below; what is under the cursor, in a preview."""

from __future__ import annotations

import asyncio

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical

from lmplay.runs import RunSummary
from lmplay.runs.queue import Queue
from lmplay.utils.errors import LMPlayError
from lmplay_tui.actions import bindings_for
from lmplay_tui.screens.labelling import LabellingScreen
from lmplay_tui.services.commands import CommandError
from lmplay_tui.services.run_feed import RunFeed
from lmplay_tui.services.run_store import Snapshot
from lmplay_tui.state import RootState
from lmplay_tui.theme import NUM_SERIES
from lmplay_tui.views.run import about_lines, head_lines
from lmplay_tui.views.run_charts import chart_of
from lmplay_tui.views.runs import (
    QUEUE_COLUMNS,
    RUN_COLUMNS,
    Arrangement,
    RowCache,
    arranged,
    first_direction,
    next_sort,
    queue_rows,
)
from lmplay_tui.widgets.chart import Chart
from lmplay_tui.widgets.fields import FilterField
from lmplay_tui.widgets.grid import Grid
from lmplay_tui.widgets.pane import Pane, Split
from lmplay_tui.widgets.text_view import TextView

_PATIENCE = 0.2
_WIDE = 160
"""Columns from which on the preview stands beside the list."""
_CHART_FROM = 9
"""Rows of the preview below which it has no chart."""
_EMPTY = (
    "No runs yet. Press 1 for the experiments and l to launch one, or type: lmplay run test_runner --plan quickstart"
)


def _layout(vertical: bool) -> str:
    """Under which name the place of the border is kept."""
    return "layout.runs_above" if vertical else "layout.runs_beside"


class QueueGrid(Grid):
    """The queue; its own keys move and remove what waits."""

    HELP = "What waits for a device. A keeper, started with s, gives each its turn, unattended."
    BINDINGS = bindings_for("queue")

    def _do(self, action: str) -> None:
        screen = self.screen
        assert isinstance(screen, RunsScreen)
        if self.cursor is not None or action == "start":
            screen.change_queue(action, self.cursor or "")

    def action_earlier(self) -> None:
        self._do("earlier")

    def action_later(self) -> None:
        self._do("later")

    def action_remove(self) -> None:
        self._do("remove")

    def action_start(self) -> None:
        self._do("start")


class RunsScreen(LabellingScreen):
    MODE = "runs"
    HELP = (
        "All runs in the folder, live. Space marks runs for a comparison; a slash filters, as lmplay runs does: "
        "exp:gpt2ish loss<4 -tag:old lr>=1e-3 state:running"
    )
    BINDINGS = bindings_for("runs", "steer")
    DEFAULT_CSS = """
    RunsScreen #queue-pane { height: auto; max-height: 9; display: none; }
    RunsScreen #queue-pane.-shown { display: block; }
    RunsScreen #queue { height: auto; max-height: 8; }
    RunsScreen #preview-head { height: 4; overflow: hidden; }
    RunsScreen.-short #preview-head { height: 3; }
    RunsScreen.-wide #preview-head { height: 4; }
    RunsScreen #preview-about { display: none; margin-top: 1; }
    RunsScreen.-wide.-high #preview-about { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._cache = RowCache()
        self._feed: RunFeed | None = None
        self._shown_number = -1
        self._arranging = False
        self._arranged: tuple[Snapshot, Arrangement] | None = None
        self._states: str = ""

    def compose_body(self) -> ComposeResult:
        self.words = FilterField(placeholder="exp:gpt2ish loss<4 -tag:old lr>=1e-3 state:running", id="filter")
        self.list = Grid(RUN_COLUMNS, empty="reading the runs...", id="runs")
        self.queue = QueueGrid(QUEUE_COLUMNS, id="queue")
        self.preview_head = TextView(id="preview-head")
        self.preview = Chart(style=self.chart_signs, id="preview-chart")
        self.list_pane = Pane(self.words, self.list, title="Runs")
        self.queue_pane = Pane(self.queue, title="Queue", id="queue-pane")
        self.preview_about = TextView(id="preview-about")
        self.preview_pane = Pane(self.preview_head, self.preview, self.preview_about, title="", id="preview")
        self.split = Split(
            Vertical(self.list_pane, self.queue_pane), self.preview_pane, share=None, usual=self._list_room, least=4
        )
        yield self.split

    def _list_room(self, room: int) -> int:
        """Of the columns beside the preview, or the rows above it."""
        return room - (max(60, room * 35 // 100) if not self.split.vertical else 16 if room >= 28 else 4)

    def on_mount(self) -> None:
        super().on_mount()
        self.words.value = self.marks.get("filter", "")
        self.words.show_value()
        wanted = self.marks.get("cursor", "")
        if self.list.rows:  # the first look at the runs was faster
            self.list.move_to(wanted)
        else:
            self.list.cursor = wanted or None
        self.list.focus()

    @property
    def marks(self) -> RootState:
        return self.workbench.marks

    @property
    def current(self) -> RunSummary | None:
        snapshot = self.workbench.snapshot
        return snapshot.get(self.list.cursor) if snapshot is not None and self.list.cursor is not None else None

    @property
    def steered(self) -> RunSummary | None:
        return self.current

    def renamed(self, name: str) -> None:
        self.list.cursor = name

    # ---- the tick ----------------------------------------------------------------------------------------------------

    def take(self, snapshot: Snapshot) -> None:
        rows = queue_rows(snapshot.queue)
        if not rows and self.focused is self.queue:
            self.list.focus()  # the queue goes out of sight
        self.queue.show(rows)
        self.queue_pane.set_class(bool(rows), "-shown")
        current = self.current
        if current is not None:
            self._show_head(current)
        states = f"{self.list.cursor} {current.state if current is not None else ''}"
        if states != self._states:
            self._states = states
            self.refresh_bindings()

    def _show_head(self, run: RunSummary) -> None:
        asked = self.workbench.requests.of(run.name)
        size, ascii_only = self.preview_head.size, self.workbench.options.ascii
        self.preview_pane.entitle(run.name)
        self.preview_head.show(head_lines(run, asked, size.width, rows=size.height or 4, ascii_only=ascii_only))
        if self.preview_about.display:
            self.preview_about.show(about_lines(run, self.preview_about.size.width or 60))

    async def look(self) -> None:
        self.workbench.requests.look()
        await self._arrange()
        current = self.current
        if current is not None and self.preview.display:
            await self._look_at(current)

    def _arrangement(self) -> Arrangement:
        get = self.marks.get
        return Arrangement(
            words=self.words.value,
            sort=get("sort", "created"),
            marked=tuple(map(str, get("marked", []))),
            pinned=tuple(map(str, get("pinned", []))),
            baseline=get("baseline", ""),
            colours={str(name): int(colour) for name, colour in get("colours", {}).items()},
            ascii_only=self.workbench.options.ascii,
        )

    async def _arrange(self) -> None:
        snapshot = self.workbench.snapshot
        if snapshot is None or self._arranging:
            return
        how = self._arrangement()
        if self._arranged is not None and self._arranged[0] is snapshot and self._arranged[1] == how:
            return
        self._arranging = True
        try:
            rows, problem = await asyncio.to_thread(arranged, snapshot, how, self._cache)
        finally:
            self._arranging = False
        self._arranged = snapshot, how
        name = how.sort.removeprefix("-")
        self.list.sort = None if name == "created" else (name, how.sort.startswith("-"))
        empty = snapshot.problem or (_EMPTY if not snapshot.runs else "no run matches the filter; escape clears it")
        self.list.show(rows, empty=empty)
        count = f"{len(rows)} of {len(snapshot.runs)}" if how.words else f"{len(rows)}"
        runs = "run" if count == "1" else "runs"
        self.list_pane.entitle(subtitle=problem or f"{count} {runs}, {snapshot.live} live")
        self.words.set_class(bool(problem), "-invalid")

    def _arrange_now(self) -> None:
        self.run_worker(self._arrange(), group="arrange")

    async def _look_at(self, run: RunSummary) -> None:
        """Fill the preview with the run under the cursor."""
        if self._feed is None or self._feed.path != run.path:
            self._feed, self._shown_number = self.workbench.feeds.of(run.path), -1
            self.preview.show_empty("reading what was logged")
        feed = self._feed
        self._show_head(run)  # again: at the first time the pane had no size yet
        picture = await asyncio.to_thread(feed.look)
        if feed is self._feed and picture.number != self._shown_number:
            self._shown_number = picture.number
            self.preview.show(chart_of(picture, "loss"))

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        vertical = event.size.width < _WIDE
        self.split.turn(vertical=vertical, share=self.workbench.state.get(_layout(vertical), 0.0) or None)

    @on(Split.Moved)
    def _split_moved(self, event: Split.Moved) -> None:
        self.workbench.state.set(_layout(event.split.vertical), event.share)

    @on(Pane.Resized, "#preview")
    def _preview_resized(self) -> None:
        self.preview.display = self.preview_pane.size.height >= _CHART_FROM
        if self.workbench.snapshot is not None:
            self.take(self.workbench.snapshot)

    @on(Grid.Highlighted, "#runs")
    def _highlighted(self, event: Grid.Highlighted) -> None:
        self.marks.set("cursor", event.key)
        if self.workbench.snapshot is not None:
            self.take(self.workbench.snapshot)
        self.run_worker(self._preview_soon(), group="preview", exclusive=True)

    async def _preview_soon(self) -> None:
        await asyncio.sleep(_PATIENCE)
        current = self.current
        if current is not None and self.preview.display:
            self.preview.look(self.preview.view.reset())
            await self._look_at(current)

    @on(Grid.Chosen, "#runs")
    def _chosen(self, event: Grid.Chosen) -> None:
        self.workbench.show_run(event.key)

    @on(FilterField.Changed, "#filter")
    def _filter_changed(self) -> None:
        self.marks.set("filter", self.words.value)
        self._arrange_now()

    @on(FilterField.Left)
    def _filter_left(self) -> None:
        self.list.focus()

    @on(Grid.TitleClicked, "#runs")
    def _title_clicked(self, event: Grid.TitleClicked) -> None:
        now = self.marks.get("sort", "created")
        same = now.removeprefix("-") == event.column
        turned = now.removeprefix("-") if now.startswith("-") else f"-{now}"
        self._sort(turned if same else first_direction(event.column))

    @on(Chart.Wanted)
    def _chart_wanted(self, event: Chart.Wanted) -> None:
        current = self.current
        if self.serve_chart(event):
            return
        if event.what == "export" and current is not None:
            self.workbench.export_chart(event.chart, f"{current.name}-loss")
        elif current is not None:
            self.workbench.show_run(current.name)

    # ---- actions -----------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        self.words.open()

    def _sort(self, sort: str) -> None:
        self.marks.set("sort", sort)
        self._arrange_now()

    def action_sort(self) -> None:
        following = next_sort(self.marks.get("sort", "created"))
        self._sort(following)
        self.notify(f"sorted by {following.removeprefix('-')}", timeout=2)

    def action_reverse(self) -> None:
        now = self.marks.get("sort", "created")
        self._sort(now.removeprefix("-") if now.startswith("-") else f"-{now}")

    def action_mark(self) -> None:
        current = self.current
        if current is not None:
            self.workbench.toggle_mark(current.name)
            self.list.action_down()
            self._arrange_now()

    def action_baseline(self) -> None:
        current = self.current
        if current is not None:
            self.marks.set("baseline", current.name)
            if current.name not in self.marks.get("marked", []):
                self.workbench.toggle_mark(current.name)
            self.notify(f"{current.name} is the baseline", timeout=2)
            self._arrange_now()

    def action_compare(self) -> None:
        self.workbench.action_show("compare")

    def action_chat(self) -> None:
        current = self.current
        if current is not None:
            self.workbench.open_chat(current.name)

    def action_pin(self) -> None:
        current = self.current
        if current is not None:
            pinned = [str(name) for name in self.marks.get("pinned", [])]
            pinned = [name for name in pinned if name != current.name] + (
                [current.name] if current.name not in pinned else []
            )
            self.marks.set("pinned", pinned)
            self._arrange_now()

    def action_colour(self) -> None:
        current = self.current
        if current is not None:
            colours = dict(self.marks.get("colours", {}))
            colours[current.name] = (int(colours.get(current.name, -1)) + 1) % NUM_SERIES
            self.marks.set("colours", colours)
            self._arrange_now()

    def action_again(self) -> None:
        current = self.current
        if current is not None:
            self.workbench.open_launch(like=current)

    def action_requeue(self) -> None:
        if self.queue_pane.display:
            self.queue.focus()
        else:
            self.notify("nothing waits in the queue", timeout=2)

    # ---- the queue ---------------------------------------------------------------------------------------------------

    def change_queue(self, action: str, entry: str) -> None:
        self.run_worker(self._change_queue(action, entry), group="queue")

    async def _change_queue(self, action: str, entry: str) -> None:
        queue = Queue(self.workbench.root)
        try:
            waiting = [one.id for one in queue.entries() if one.state == "waiting"]
            if action == "start":
                said = await self.workbench.commands.run("queue", "start")
                self.notify(said.strip() or "a keeper serves the queue", timeout=6)
            elif action == "remove":
                await asyncio.to_thread(queue.remove, entry)
            elif entry in waiting:
                place = waiting.index(entry) + 1 + (-1 if action == "earlier" else 1)
                await asyncio.to_thread(queue.move, entry, place)
        except (LMPlayError, CommandError) as error:
            self.notify(str(error), severity="error", timeout=8)
        self.workbench.look_now()
