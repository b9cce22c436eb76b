"""Screen 1: every experiment there is; what one consists of and costs; whether it is sound."""

from __future__ import annotations

import asyncio

from textual import events, on
from textual.app import ComposeResult

from lmplay_tui.actions import bindings_for
from lmplay_tui.screens.checking import CheckingScreen
from lmplay_tui.services.commands import CommandError
from lmplay_tui.services.experiments import USUAL_ROWS, Experiment
from lmplay_tui.views.experiments import (
    CHECK_COLUMNS,
    GRADIENT_COLUMNS,
    LAYER_COLUMNS,
    LIST_COLUMNS,
    check_rows,
    gradient_rows,
    layer_rows,
    list_rows,
    overview,
    verdict_note,
)
from lmplay_tui.widgets.fields import FilterField
from lmplay_tui.widgets.grid import Grid
from lmplay_tui.widgets.pane import Pane, Split
from lmplay_tui.widgets.tabs import Views
from lmplay_tui.widgets.text_view import TextView

_PATIENCE = 0.25
"""Seconds the cursor rests on an experiment before a process is started to describe it."""


_LARGE = (160, 40)
"""Columns and rows from which on the list stands above, and below it what it is made of beside the other views."""
_DESCRIBED = 61
"""Columns of the list from which on descriptions have room."""


def _large(width: int, height: int) -> bool:
    return width >= _LARGE[0] and height >= _LARGE[1]


def _layout(large: bool) -> str:
    """Under which name the place of the border is kept."""
    return "layout.experiments_above" if large else "layout.experiments"


class ExperimentsScreen(CheckingScreen):
    MODE = "experiments"
    HELP = (
        "All experiments: those of lmplay, of installed packages and of $LMPLAY_EXPERIMENTS. The pane beside tells "
        "what the one under the cursor is made of and costs, and asks whether it is sound."
    )
    BINDINGS = bindings_for("experiments")

    def __init__(self) -> None:
        super().__init__()
        self._problems: dict[str, str] = {}
        self._depth, self._rows, self._by_size = 3, USUAL_ROWS, False

    def compose_body(self) -> ComposeResult:
        self.names = Grid(LIST_COLUMNS, empty="looking for experiments...", id="experiments")
        self.words = FilterField(placeholder="part of a name, family or description", id="filter")
        self.overview = TextView(id="overview", focusable=True)
        self.layer_grid = Grid(LAYER_COLUMNS, empty="not known yet", id="layers")
        self.layers_beside = Grid(LAYER_COLUMNS, empty="not known yet", id="layers-beside")
        self.check_grid = Grid(CHECK_COLUMNS, id="checks")
        self.gradient_grid = Grid(GRADIENT_COLUMNS, id="gradients")
        self.views = Views(
            {
                "overview": ("Overview", self.overview),
                "layers": ("Layers", self.layer_grid),
                "checks": ("Checks", self.check_grid),
                "gradients": ("Gradients", self.gradient_grid),
            },
            id="detail",
        )
        self.detail = Pane(self.views, title="", id="detail-pane")
        self.beside = Pane(self.layers_beside, title="Layers", id="layers-pane")
        state = self.workbench.state
        self.lower = Split(
            self.detail, self.beside, share=state.get("layout.experiments_layers", 0.0) or None, id="lower"
        )
        self.split = Split(
            Pane(self.words, self.names, title="Experiments", id="list-pane"),
            self.lower,
            share=None,
            usual=self._list_room,
            least=6,
            id="split",
        )
        yield self.split

    def _list_room(self, room: int) -> int:
        """Above the rest, rows for all; beside it names and sizes are always seen, and descriptions where they fit."""
        if self.split.vertical:
            return min(room * 45 // 100, max(10, len(self.workbench.index.now.experiments) + 3))
        return min(150, room - 65) if room - 65 >= _DESCRIBED else 33

    @property
    def is_large(self) -> bool:
        return self.split.vertical

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        large = _large(*event.size)
        self.split.turn(vertical=large, share=self.workbench.state.get(_layout(large), 0.0) or None)
        self.lower.set_alone(not large)
        self.beside.display = large
        self.views.hide("layers", hidden=large)
        self.show_detail()

    def on_mount(self) -> None:
        super().on_mount()
        state = self.workbench.state
        self.words.value = state.get("experiments.filter", "")
        self.words.show_value()
        self.views.choose(state.get("experiments.view", "overview"))
        self._show_list()
        wanted = state.get("experiments.cursor", "")
        if wanted:
            self.names.move_to(wanted)
        self.names.focus()
        self._renew_behind()

    # ---- the list ----------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Experiment | None:
        """The experiment under the cursor."""
        key = (self.names.cursor or "").removeprefix("broken:")
        return next((one for one in self.workbench.index.now.experiments if one.name == key), None)

    def _show_list(self) -> None:
        index = self.workbench.index
        counted = {}
        for one in index.now.experiments:
            told = index.description(one.name)
            if told is not None:
                counted[one.name] = int(told["parameters"])
        rows = list_rows(index.now.experiments, self.words.value, counted, ascii_only=self.workbench.options.ascii)
        empty = (
            "no experiment matches the filter; escape clears it" if self.words.value else "looking for experiments..."
        )
        self.names.show(rows, empty=empty)
        if self.is_large:
            self.split.fit()  # rows for all, which may have become more
        pane = self.query_one("#list-pane", Pane)
        pane.entitle(subtitle=f"{len(rows)} of {len(index.now.experiments)}" if self.words.value else f"{len(rows)}")

    def _renew_behind(self) -> None:
        self.begin(self._renew, "renew")

    async def _renew(self) -> None:
        await self.workbench.begun.wait()
        try:
            await self.workbench.index.renew()
        except CommandError as error:
            if not self.workbench.index.now.known:
                self.names.show((), empty=f"the experiments can't be listed: {error}")
            self.notify(f"the experiments can't be listed: {error}", severity="error")
            return
        self._show_list()
        self.begin(self._count_others, "count")

    async def _count_others(self) -> None:
        """Describe those that nothing is known of yet, one after another, so that the list tells their size."""
        index = self.workbench.index
        for one in index.now.experiments:
            if one.broken is None and index.description(one.name) is None and one.name not in self._problems:
                while not self.is_current:  # what is asked for on another screen, or in a dialog, comes first
                    await asyncio.sleep(1)
                try:
                    await index.describe(one.name)
                except CommandError as error:
                    self._problems[one.name] = str(error)
                self._show_list()
                if one is self.current:
                    self.show_detail()

    @on(FilterField.Changed, "#filter")
    def _filter_changed(self) -> None:
        self.workbench.state.set("experiments.filter", self.words.value)
        self._show_list()

    @on(FilterField.Left)
    def _filter_left(self) -> None:
        self.names.focus()

    @on(Grid.Highlighted, "#experiments")
    def _highlighted(self, event: Grid.Highlighted) -> None:
        self.workbench.state.set("experiments.cursor", event.key)
        self.show_detail()
        self.begin(self._describe, "describe")

    @on(Grid.Chosen, "#experiments")
    def _chosen(self) -> None:
        self.views.choose("overview" if self.views.chosen == "checks" else self.views.chosen)
        {"layers": self.layer_grid, "checks": self.check_grid, "gradients": self.gradient_grid}.get(
            self.views.chosen, self.overview
        ).focus()

    # ---- one experiment ----------------------------------------------------------------------------------------------

    async def _describe(self) -> None:
        """Ask for the description of the experiment under the cursor, when it rests there and nothing is known."""
        one, index = self.current, self.workbench.index
        if one is None or one.broken is not None:
            return
        if index.description(one.name, rows=self._rows) is None:
            await asyncio.sleep(_PATIENCE)
            try:
                await index.describe(one.name, rows=self._rows)
                self._problems.pop(one.name, None)
            except CommandError as error:
                self._problems[one.name] = str(error)
            self._show_list()
        self.show_detail()

    def show_detail(self) -> None:
        one = self.current
        self.detail.entitle(one.name if one is not None else "")
        if one is None:
            self.overview.show(())
            self.layers_beside.show((), empty="")
            return
        ascii_only = self.workbench.options.ascii
        index = self.workbench.index
        told = index.description(one.name, rows=self._rows) or index.description(one.name)
        view = self.views.chosen
        self.detail.entitle(subtitle=self._subtitle(view))
        if view == "overview":
            problem = self._problems.get(one.name, "")
            width = self.detail.size.width or 60
            self.overview.show(overview(one, told, width, rows=self._rows, problem=problem, ascii_only=ascii_only))
        if self.is_large or view == "layers":
            layers = told["layers"] if told is not None else ()
            self.beside.entitle(subtitle=self._subtitle("layers"))
            (self.layers_beside if self.is_large else self.layer_grid).show(
                layer_rows(layers, depth=self._depth, by_size=self._by_size, ascii_only=ascii_only),
                empty=self._problems.get(one.name) or one.broken or "building it without weights, to count...",
            )
        results = self.results.get(one.name, {})
        running = self.running_check(one.name)
        if view == "checks":
            rows = check_rows(results, running, self.detail.size.width, ascii_only=ascii_only)
            self.check_grid.show(() if one.broken else rows, empty=one.broken or "")
        elif view == "gradients":
            gradients = self.gradients.get(one.name)
            self.gradient_grid.show(
                gradient_rows(gradients, ascii_only=ascii_only) if gradients is not None else (),
                empty=one.broken or "c asks the checks, of which these are a part",
            )
        self.views.tabs.note("checks", *verdict_note(results, running is not None))

    def _subtitle(self, view: str) -> str:
        if view == "layers":
            return f"depth {self._depth}, {'by size' if self._by_size else 'in order'}"
        if view in ("checks", "gradients"):
            return "tiny" if self.tiny else "full size"
        return ""

    @on(Views.Changed)
    def _view_changed(self, event: Views.Changed) -> None:
        self.workbench.state.set("experiments.view", event.name)
        self.show_detail()

    @on(Pane.Resized, "#detail-pane")
    def _resized(self) -> None:
        self.show_detail()

    @on(Split.Moved)
    def _split_moved(self, event: Split.Moved) -> None:
        name = "layout.experiments_layers" if event.split is self.lower else _layout(self.is_large)
        self.workbench.state.set(name, event.share)

    # ---- actions -----------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        self.words.open()

    def action_view(self) -> None:
        self.views.next()

    def action_renew(self) -> None:
        self._renew_behind()
        self.notify("looking for experiments again", timeout=2)

    def _sound(self) -> Experiment | None:
        """The experiment under the cursor, if it can be used; says so where not."""
        one = self.current
        if one is not None and one.broken is not None:
            self.notify(f"{one.name} can't be imported: {one.broken}", severity="warning", timeout=6)
            return None
        return one

    def action_check(self) -> None:
        one = self._sound()
        if one is None:
            return
        self.views.choose("checks")
        self.begin_check(one.name)

    def action_deeper(self) -> None:
        self._depth = min(8, self._depth + 1)
        self._layers_changed()

    def action_shallower(self) -> None:
        self._depth = max(1, self._depth - 1)
        self._layers_changed()

    def action_sort_layers(self) -> None:
        self._by_size = not self._by_size
        self._layers_changed()

    def _layers_changed(self) -> None:
        if not self.is_large:
            self.views.choose("layers")
        self.show_detail()

    def action_more_rows(self) -> None:
        self._change_rows(self._rows * 2)

    def action_fewer_rows(self) -> None:
        self._change_rows(self._rows // 2)

    def _change_rows(self, rows: int) -> None:
        self._rows = min(4096, max(1, rows))
        self.views.choose("overview")
        self.show_detail()
        self.begin(self._describe, "describe")

    def action_launch(self) -> None:
        one = self._sound()
        if one is not None:
            self.workbench.open_launch(experiment=one.name)

    def action_edit(self) -> None:
        one = self.current
        folder = self.workbench.index.source(one.name) if one is not None else None
        if folder is not None:
            self.workbench.edit(folder / "model.py")
            self._renew_behind()

    def action_new(self) -> None:
        one = self._sound()
        if one is not None:
            self.run_worker(self._new(one.name), group="new", exclusive=True)

    async def _new(self, template: str) -> None:
        """Ask for a name, let `lmplay new` copy, open the editor."""
        from lmplay_tui.dialogs.asking import TextDialog

        name = await self.app.push_screen_wait(
            TextDialog("New experiment", f"A copy of {template} under the name", placeholder="my_idea")
        )
        if not name:
            return
        try:
            said = await self.workbench.commands.run("new", name, "--from", template)
        except CommandError as error:
            self.notify(str(error), severity="error", timeout=8)
            return
        self.notify(said.strip().splitlines()[0] if said.strip() else f"{name} is there", timeout=6)
        await self._renew()
        self.names.move_to(name)
        folder = self.workbench.index.source(name)
        if folder is not None:
            self.workbench.edit(folder / "model.py")
