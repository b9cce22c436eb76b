"""Screen 7: what models are trained on. Plans with their stages, datasets, packed rows, the token cache; preparing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical

from lmplay.plans import Plan
from lmplay.utils.errors import LMPlayError
from lmplay_tui.actions import bindings_for
from lmplay_tui.lines import wrapped
from lmplay_tui.screens.packed_row import PackedRowScreen
from lmplay_tui.screens.plan_files import PlanFilesScreen
from lmplay_tui.services.data_facts import CACHE, DataFacts, RowKey
from lmplay_tui.services.plan_shelf import ShelvedPlan, read_plans
from lmplay_tui.services.preparation import Preparation, Preparations
from lmplay_tui.views.data import (
    CACHE_COLUMNS,
    DATASET_COLUMNS,
    PLAN_COLUMNS,
    cache_rows,
    cache_title,
    dataset_lines,
    dataset_rows,
    plan_rows,
    preparation_lines,
    stage_lines,
    used_datasets,
)
from lmplay_tui.views.packed_row import row_lines
from lmplay_tui.widgets.grid import Grid
from lmplay_tui.widgets.pane import Pane, Split
from lmplay_tui.widgets.tabs import Views
from lmplay_tui.widgets.text_view import TextView

_PATIENCE = 0.25
"""Seconds that a choice rests before a process is started for it."""


def _list_width(width: int) -> int:
    """Beyond what the detail takes, the list has the room for its descriptions."""
    return max(27, min(130, width - 78))


class DataScreen(PlanFilesScreen, PackedRowScreen):
    MODE = "data"
    HELP = (
        "Plans: which text a model is trained on, in which order and for how long. Beside each: its stages, its "
        "datasets, and a packed row as the model meets it. Preparing turns text into tokens ahead of a run; it goes "
        "on when the workbench is left."
    )
    BINDINGS = bindings_for("data")
    DEFAULT_CSS = """
    DataScreen #dataset-view { layout: vertical; }
    DataScreen #datasets { height: auto; max-height: 8; margin-bottom: 1; }
    DataScreen #dataset-text { height: 1fr; }
    DataScreen #preparing-pane { height: auto; max-height: 7; display: none; }
    DataScreen #preparing-pane.-shown { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._plans: tuple[ShelvedPlan, ...] = ()
        self._prepared: tuple[Preparation, ...] = ()

    def compose_body(self) -> ComposeResult:
        self.facts = DataFacts(self.workbench.commands)
        self.plans = Grid(PLAN_COLUMNS, empty="reading the plans...", id="plans")
        self.stages = TextView(id="stages", focusable=True)
        self.datasets = Grid(DATASET_COLUMNS, empty="", id="datasets")
        self.dataset_text = TextView(id="dataset-text", focusable=True)
        self.row = TextView(id="row", focusable=True)
        self.cache = Grid(CACHE_COLUMNS, empty="asking what is prepared...", id="cache")
        self.views = Views(
            {
                "stages": ("Stages", self.stages),
                "datasets": ("Datasets", Vertical(self.datasets, self.dataset_text, id="dataset-view")),
                "row": ("Row", self.row),
                "cache": ("Cache", self.cache),
            },
            id="detail",
        )
        self.detail = Pane(self.views, title="")
        self.preparing = TextView(id="preparing")
        yield Split(
            Pane(self.plans, title="Plans", id="plan-pane"),
            self.detail,
            share=self.workbench.state.get("layout.data", 0.0) or None,
            usual=_list_width,
            least=24,
            id="split",
        )
        yield Pane(self.preparing, title="Preparing", id="preparing-pane")

    def on_mount(self) -> None:
        super().on_mount()
        self.views.choose(self.workbench.state.get("data.view", "stages"))
        self.plans.focus()
        self.call_after_refresh(self.action_renew)

    # ---- what is under the cursors -----------------------------------------------------------------------------------

    @property
    def preparations(self) -> Preparations:
        return self.workbench.preparations

    @property
    def current(self) -> ShelvedPlan | None:
        """The plan under the cursor."""
        return next((plan for plan in self._plans if plan.key == self.plans.cursor), None)

    @property
    def dataset(self) -> str | None:
        """The dataset of that plan under the cursor of the list of datasets."""
        plan = self.current
        if plan is None or plan.plan is None:
            return None
        used = used_datasets(plan.plan)
        return self.datasets.cursor if self.datasets.cursor in used else used[0]

    @property
    def row_place(self) -> tuple[str, str] | None:
        plan, dataset = self.plans.cursor, self.dataset
        return None if plan is None or dataset is None else (plan, dataset)

    def row_chosen(self) -> None:
        self.row.scroll_home(animate=False)
        if self.views.chosen == "row":
            self._show()
            self._ask_detail()
        else:
            self.views.choose("row")

    # ---- the list, and what each plan takes --------------------------------------------------------------------------

    async def _renew(self) -> None:
        opened = [str(path) for path in self.workbench.state.get("data.opened", [])]
        self._plans = await asyncio.to_thread(read_plans, Path.cwd(), opened)
        self._show()
        self.plans.move_to(self.workbench.state.get("data.cursor", "quickstart"))
        await self._ask_all()

    async def _ask_all(self) -> None:
        """Count the plan under the cursor, once it rests there, then the others, one process at a time."""
        current = self.current
        if current is not None and current.key not in self.facts.costs:
            await asyncio.sleep(_PATIENCE)
        for plan in [*filter(None, [current]), *self._plans]:
            if plan.plan is None or plan.key in self.facts.costs or plan.key in self.facts.problems:
                continue
            await self.facts.ask_costs(plan.key)
            self._show()
            if plan is current:
                self._ask_detail()

    def _ask_again(self) -> None:
        self.begin(self._ask_all, "costs")

    @on(Grid.Highlighted, "#plans")
    def _plan_highlighted(self, event: Grid.Highlighted) -> None:
        self.workbench.state.set("data.cursor", event.key)
        self.stages.scroll_home(animate=False)
        self._show()
        self.refresh_bindings()  # what can be done with a plan depends on whether it is being prepared
        if event.key not in self.facts.costs:
            self._ask_again()
        self._ask_detail()

    @on(Grid.Chosen, "#plans")
    def _plan_chosen(self) -> None:
        {"stages": self.stages, "datasets": self.datasets, "row": self.row, "cache": self.cache}[
            self.views.chosen
        ].focus()

    @on(Grid.Highlighted, "#datasets")
    def _dataset_highlighted(self) -> None:
        self.dataset_text.scroll_home(animate=False)
        self._show()
        self._ask_detail()

    @on(Grid.Chosen, "#datasets")
    def _dataset_chosen(self) -> None:
        self.views.choose("row")
        self.row.focus()

    @on(Views.Changed)
    def _view_changed(self, event: Views.Changed) -> None:
        self.workbench.state.set("data.view", event.name)
        self._show()
        self._ask_detail()

    # ---- what the view in sight needs to know ------------------------------------------------------------------------

    def _ask_detail(self) -> None:
        if self.views.chosen != "stages":
            self.begin(self._ask_view, "detail")

    async def _ask_view(self) -> None:
        view, key = self.views.chosen, self.row_key
        if view == "cache":
            await self.facts.ask_cache()
        elif key is None or not self.facts.is_prepared(key.plan, key.dataset):
            return
        elif view == "row" and key not in self.facts.rows:
            await asyncio.sleep(_PATIENCE)
            await self.facts.ask_row(key)
        elif view == "datasets" and (key.plan, key.dataset) not in self.facts.datasets:
            await asyncio.sleep(_PATIENCE)
            await self.facts.ask_dataset(key.plan, key.dataset, key.length)
        self._show()

    # ---- showing -----------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        ascii_only = self.workbench.options.ascii
        running = [one.plan for one in self.preparations.running]
        self.plans.show(plan_rows(self._plans, self.facts.costs, running, ascii_only=ascii_only))
        plan, view = self.current, self.views.chosen
        self.detail.entitle(plan.name if plan is not None else "", self._subtitle(view))
        width = max(20, self.views.size.width or 60)
        if view == "cache":
            stores = self.facts.stores
            asking = "asking what is prepared..." if stores is None else "nothing is prepared yet"
            self.cache.show(cache_rows(stores or (), time.time()), empty=self.facts.problems.get(CACHE, asking))
        elif plan is None:
            for text in (self.stages, self.dataset_text, self.row):
                text.show(())
        elif view == "stages" or plan.plan is None:
            problem = self.facts.problems.get(plan.key, "")
            lines = stage_lines(plan, self.facts.costs.get(plan.key), width, problem=problem, ascii_only=ascii_only)
            {"datasets": self.dataset_text, "row": self.row}.get(view, self.stages).show(lines)
            self.datasets.show(())
        else:
            self.datasets.show(dataset_rows(plan.plan, self.facts.costs.get(plan.key), ascii_only=ascii_only))
            if self.row_key is not None:
                self._show_dataset(plan.plan, self.row_key, width, ascii_only=ascii_only)

    def _subtitle(self, view: str) -> str:
        key = self.row_key
        if view == "cache":
            return cache_title(self.facts.stores or ())
        return f"{key.dataset}, {key.packing}, {key.length} tokens" if view == "row" and key is not None else ""

    def _show_dataset(self, plan: Plan, key: RowKey, width: int, *, ascii_only: bool) -> None:
        if self.views.chosen == "datasets":
            place = (key.plan, key.dataset)
            told, note = self.facts.datasets.get(place), self._note(key, place, "reading its documents...")
            spec = plan.datasets[key.dataset]
            self.dataset_text.show(dataset_lines(spec, told, width, note=note, ascii_only=ascii_only))
            return
        row = self.facts.rows.get(key)
        if row is not None:
            self.row.show(row_lines(row, width, ascii_only=ascii_only))
        else:
            note = self._note(key, key, f"reading row {key.number:,} of {key.dataset}...")
            self.row.show(wrapped(note, width - 1, "bad" if key in self.facts.problems else "muted"))

    def _note(self, key: RowKey, of: object, asking: str) -> str:
        """What is said while, or because, there is nothing else."""
        problem = self.facts.problems.get(of) or self.facts.problems.get(key.plan)
        if problem:
            return problem
        if key.plan in self.facts.costs and not self.facts.is_prepared(key.plan, key.dataset):
            return f"{key.dataset} is not prepared yet: p does it."
        return asking

    @on(Pane.Resized)
    def _resized(self) -> None:
        self._show_preparing()

    @on(Split.Moved)
    def _split_moved(self, event: Split.Moved) -> None:
        self.workbench.state.set("layout.data", event.share)

    # ---- preparing ---------------------------------------------------------------------------------------------------

    @property
    def stirs(self) -> bool:
        return super().stirs or any(one.state == "running" for one in self._prepared)

    async def look(self) -> None:
        now = await asyncio.to_thread(self.preparations.look)
        if now is not self._prepared:
            before, self._prepared = self._prepared, now
            ended = {one.plan for one in before if one.state == "running"}
            ended -= {one.plan for one in now if one.state == "running"}
            self._show_preparing()
            self.refresh_bindings()
            if ended:
                self._forget_counts()

    def _show_preparing(self) -> None:
        width = max(20, self.size.width - 2)
        lines = preparation_lines(self._prepared, width, ascii_only=self.workbench.options.ascii)
        self.query_one("#preparing-pane", Pane).set_class(bool(lines), "-shown")
        self.preparing.show(lines)
        self._show()

    def _forget_counts(self) -> None:
        """Something is prepared now that was not: every plan with it has other figures."""
        self.facts.forget()
        self._ask_again()
        self._ask_detail()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not super().check_action(action, parameters):
            return False
        running = {one.plan for one in self.preparations.running}
        key = self.plans.cursor if self.is_mounted else None
        if action == "prepare":
            return key not in running
        if action == "stop":
            return key in running
        if action == "forget":
            return len(self.preparations.now) > len(running)
        return True

    def action_prepare(self) -> None:
        plan = self.current
        if plan is None or plan.plan is None:
            return
        try:
            self.preparations.start(plan.key)
        except LMPlayError as error:
            self.notify(str(error), severity="error", timeout=8)
        self.workbench.look_now()

    def action_stop(self) -> None:
        if self.plans.cursor is not None:
            try:
                self.preparations.stop(self.plans.cursor)
            except OSError as error:
                self.notify(f"it can't be stopped: {error.strerror or error}", severity="error")
            self.workbench.look_now()

    def action_forget(self) -> None:
        self.preparations.dismiss()
        self.workbench.look_now()

    # ---- other actions -----------------------------------------------------------------------------------------------

    def action_view(self) -> None:
        self.views.next()

    def action_renew(self) -> None:
        self.facts.forget()
        self.begin(self._renew, "costs")
        self._ask_detail()

    def action_launch(self) -> None:
        plan = self.current
        if plan is not None and plan.plan is not None:
            self.workbench.open_launch(plan=plan.key)

    def action_dataset(self) -> None:
        """The next dataset of the plan."""
        plan = self.current
        if plan is None or plan.plan is None or self.dataset is None:
            return
        used = used_datasets(plan.plan)
        if self.views.chosen not in ("datasets", "row"):
            self.views.choose("datasets")
        self.datasets.move_to(used[(used.index(self.dataset) + 1) % len(used)])
