"""Screen 2, a dialog over any other: set up a run, see what it costs and the command that it is, start or queue it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Grid as GridLayout
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Label

from lmplay_tui.actions import bindings_for
from lmplay_tui.dialogs.asking import Choices, complaint_of
from lmplay_tui.dialogs.launch_form import (
    BY_NAME,
    DEVICES,
    FIELDS,
    Known,
    arguments,
    command_line,
    described_as,
    difference_line,
    estimate_lines,
    problems,
)
from lmplay_tui.dialogs.modal import Modal
from lmplay_tui.lines import line, wrapped
from lmplay_tui.services.commands import CommandError
from lmplay_tui.services.dry_run import look_at_dry_run, new_folder, throw_away
from lmplay_tui.services.plan_shelf import read_plans
from lmplay_tui.widgets.bars import KeyBar
from lmplay_tui.widgets.choice import Choice
from lmplay_tui.widgets.fields import Field
from lmplay_tui.widgets.text_view import TextView

_PATIENCE = 0.4
_LOOK_SECONDS = 0.3
_WIDTH = 74


class LaunchScreen(Modal[str | None]):
    """Gives the name of the run that was started, or None."""

    HELP = (
        "Set up a run. A field left empty takes what stands dim in it: what the plan says, or the default. The last "
        "line is the command that is started; it does the same in any shell."
    )
    DEFAULT_CSS = """
    LaunchScreen { align: center middle; background: $background 55%; }
    LaunchScreen > Vertical {
        width: 80; max-width: 100%; height: auto; max-height: 23; padding: 0 1;
        background: $background; border: round $primary; border-title-color: $primary; border-title-style: bold;
    }
    LaunchScreen #form { layout: grid; grid-size: 4; grid-columns: 13 1fr 13 1fr; grid-gutter: 0 1; height: auto; }
    LaunchScreen #form Label { color: $text-muted; height: 1; }
    LaunchScreen #form Field, LaunchScreen #form Choice { height: 1; }
    LaunchScreen #wide { height: 1; }
    LaunchScreen #wide Label { width: 14; color: $text-muted; }
    LaunchScreen .rule { height: 1; color: $text-muted; }
    LaunchScreen TextView { height: auto; }
    LaunchScreen #command { min-height: 2; max-height: 3; }
    LaunchScreen #told { height: 2; }
    LaunchScreen #estimate { height: 2; }
    LaunchScreen #said { min-height: 2; max-height: 3; }
    """
    BINDINGS = bindings_for("launch")

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__()
        self._values = {field.name: values.get(field.name, "") for field in FIELDS}
        self._known = Known()
        self._widgets: dict[str, Field | Choice] = {}
        # Kept, not looked for: an answer may still come in when what is on the screen is being taken away.
        self._texts = {name: TextView(id=name) for name in ("told", "differs", "estimate", "command", "said")}
        self._busy = ""

    # ---- the form ----------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        cells: list[Widget] = []
        for field in FIELDS:
            value = self._values[field.name]
            if field.choice:
                widget: Field | Choice = Choice((value,), value=value, id=f"field-{field.name}")
            else:
                widget = Field(value, id=f"field-{field.name}")
            self._widgets[field.name] = widget
            if field.name != "sets":
                cells += [Label(field.label), widget]
        with Vertical() as box:
            box.border_title = "Launch"
            yield GridLayout(*cells, id="form")
            yield Horizontal(Label("overrides"), self._widgets["sets"], id="wide")
            yield from self._texts.values()
        yield KeyBar()

    def on_mount(self) -> None:
        self.bindings_updated_signal.subscribe(self, lambda _: self._keys())
        self.call_after_refresh(self._keys)
        self._widgets["plan" if self._values["experiment"] else "experiment"].focus()
        self._show()
        self.run_worker(self._learn_settings(), group="settings")
        self._ask_cost()

    def _keys(self) -> None:
        app = self._workbench
        self.query_one(KeyBar).update_content(app.keymap, ascii_only=app.options.ascii)

    @property
    def _workbench(self) -> Any:
        return self.app

    @property
    def _wrong(self) -> dict[str, str]:
        """What can be seen to be wrong, by field."""
        from lmplay.runs.layout import free_path

        found = problems(self._values, self._known)
        name = self._values["name"].strip()
        # Of a run that is being started from here, the name is soon taken.
        asked = name and self._busy not in ("start", "enqueue")
        complaint = complaint_of(lambda: free_path(self._workbench.root, name)) if asked else ""
        return {**found, "name": complaint} if complaint else found

    @on(Field.Changed)
    @on(Choice.Changed)
    def _edited(self, event: Field.Changed | Choice.Changed) -> None:
        name = (event.control.id or "").removeprefix("field-")
        before = self._values.get(name)
        if name not in BY_NAME or before == event.value:
            return
        self._values[name] = event.value
        self._workbench.state.set("launch", {**self._values, "name": ""})
        self._say("", "")  # what was said of the form before
        if name in ("experiment", "plan"):
            self._known = replace(
                self._known, plan=None, description=None if name == "experiment" else self._known.description
            )
        if name in ("experiment", "plan", "mini_batch_size", "sets"):
            self._ask_cost()
        self._show()

    @on(Field.Submitted)
    def _field_done(self) -> None:
        self.focus_next()

    @on(Choice.ListWanted)
    def _list_wanted(self, event: Choice.ListWanted) -> None:
        self.run_worker(self._list(event.choice), group="list")

    async def _list(self, choice: Choice) -> None:
        name = (choice.id or "").removeprefix("field-")
        told = self._told_of_choices(name)
        chosen = await self.app.push_screen_wait(
            Choices(BY_NAME[name].label, [(one, told.get(one, "")) for one in choice.choices], chosen=choice.value)
        )
        if chosen:
            choice.choose(chosen)

    def _told_of_choices(self, name: str) -> dict[str, str]:
        if name == "experiment":
            return {one.name: one.description for one in self._workbench.index.now.experiments}
        return self._plans if name == "plan" else {}

    def on_descendant_focus(self) -> None:
        self._show()

    def _show(self) -> None:
        """Everything that follows from what is filled in."""
        wrong = self._wrong
        for name, widget in self._widgets.items():
            widget.placeholder = self._known.default(name)
            widget.set_class(name in wrong, "-invalid")
            told = self._known.told(name)
            widget.tooltip = told or None
            widget.told = f"{BY_NAME[name].label}: {told}" if told else ""
        focused = (self.focused.id or "").removeprefix("field-") if self.focused is not None else ""
        first_wrong = focused if focused in wrong else next(iter(wrong), "")
        if first_wrong:
            said = wrapped(f"{BY_NAME[first_wrong].label}: {wrong[first_wrong]}", _WIDTH, "bad")
        else:
            said = wrapped(self._known.told(focused) if focused in BY_NAME else "", _WIDTH, "muted")
        self._texts["told"].show(said[:2])
        self._texts["differs"].show([line(("differs   ", "muted"), *difference_line(self._values, self._known))])
        self._texts["estimate"].show(estimate_lines(self._values, self._known))
        shown = (
            wrapped("$ " + command_line(self._values, self._known), _WIDTH, "bold")
            if self._values["experiment"]
            else []
        )
        self._texts["command"].show(shown[:3])

    def _say(self, text: str, ink: str) -> None:
        self._texts["said"].show(wrapped(text, _WIDTH, ink)[:3])

    # ---- what the other commands know --------------------------------------------------------------------------------

    _plans: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

    async def _learn_settings(self) -> None:
        app = self._workbench
        self._choices("device", DEVICES)
        try:
            if not app.index.now.known:
                await app.index.renew()
            self._choices("experiment", [one.name for one in app.index.now.experiments if one.broken is None])
            opened = [str(path) for path in app.state.get("data.opened", [])]
            shelved = asyncio.to_thread(read_plans, Path.cwd(), opened)
            rows, plans = await asyncio.gather(app.commands.json("settings"), shelved)
        except CommandError as error:
            self._say(str(error), "bad")
            return
        self._plans = {one.key: one.plan.description for one in plans if one.plan is not None}
        self._known = replace(self._known, settings={row["key"]: row for row in rows})
        self._choices("plan", tuple(self._plans))
        for name in ("precision", "schedule"):
            # The first choice is none: whatever the plan says.
            self._choices(name, ("", *self._known.choices(name)))
        self._show()

    def _choices(self, name: str, choices: Any) -> None:
        widget = self._widgets[name]
        assert isinstance(widget, Choice)
        widget.set_choices(tuple(choices), self._values[name] or ("" if "" in choices else self._known.default(name)))
        self._values[name] = widget.value

    def _ask_cost(self) -> None:
        self.run_worker(self._cost(), group="cost", exclusive=True)

    async def _cost(self) -> None:
        """What the plan and the model cost: two processes, once the choice rests."""
        await asyncio.sleep(_PATIENCE)
        app, experiment, plan = self._workbench, self._values["experiment"], self._values["plan"]
        if not experiment or not plan:
            return
        try:
            if self._known.plan is None:
                asked = app.commands.json("plans", "show", plan, "--experiment", experiment)
                found, described = await asyncio.gather(asked, app.index.describe(experiment))
                self._known = replace(self._known, plan=found, description=described)
                self._show()
            if self._wrong:
                return  # said already, beside the field
            # As the model is changed here, and for as many rows at once as here.
            settings, rows = described_as(self._values, self._known)
            described = await app.index.describe(experiment, settings, rows)
        except CommandError as error:
            self._say(str(error), "bad")
            return
        self._known = replace(self._known, description=described)
        self._show()

    # ---- doing it ----------------------------------------------------------------------------------------------------

    def action_cancel(self) -> None:
        self.dismiss(None)

    def action_empty(self) -> None:
        for name, widget in self._widgets.items():
            if name in ("experiment", "plan"):
                continue
            if isinstance(widget, Choice):
                widget.choose("auto" if name == "device" else "")
            else:
                widget.value = ""

    def action_copy(self) -> None:
        self._workbench.copy(command_line(self._values, self._known))

    def action_start(self) -> None:
        self._do("start", self._start)

    def action_enqueue(self) -> None:
        self._do("enqueue", self._enqueue)

    def action_dry(self) -> None:
        self._do("dry", self._dry)

    def _do(self, name: str, what: Callable[[], Awaitable[None]]) -> None:
        """Starting ends a dry step that goes on; nothing is started twice."""
        if not self._values["experiment"] or self._busy in ("start", "enqueue"):
            return
        wrong = self._wrong
        if wrong:
            self._widgets[next(iter(wrong))].focus()  # what is wrong with it stands below the form
            return
        self._busy = name
        self.run_worker(self._guarded(name, what), group="do", exclusive=True)

    async def _guarded(self, name: str, what: Callable[[], Awaitable[None]]) -> None:
        try:
            await what()
        except CommandError as error:
            self._say(str(error), "bad")
        finally:
            if self._busy == name:
                self._busy = ""

    def _named(self) -> tuple[list[str], str]:
        """(arguments with a name, the name): it is chosen here, so that the run can be shown at once."""
        from lmplay.runs import new_run_name

        found = arguments(self._values, self._known)
        if "--name" in found:
            return found, found[found.index("--name") + 1]
        name = new_run_name(self._values["experiment"])
        return [*found, "--name", name], name

    async def _start(self) -> None:
        parts, name = self._named()
        self._say("starting: what can be wrong is found before a run exists...", "primary")
        await self._workbench.commands.run("run", *parts, "--detach")
        self.dismiss(name)

    async def _enqueue(self) -> None:
        parts, name = self._named()
        device = parts[parts.index("--device") :][:2] if "--device" in parts else []
        parts = _without(parts, "--name", "--device")
        self._say("putting it into the queue...", "primary")
        said = await self._workbench.commands.run("queue", "add", "--name", name, *device, *parts)
        self.app.notify(" ".join(said.split()) or f"{name} waits in the queue", timeout=6)
        self.dismiss(None)
        self._workbench.action_show("runs")

    async def _dry(self) -> None:
        """One step in a folder of its own, which is thrown away as soon as the step is done."""
        parts = _without(arguments(self._values, self._known), "--steps", "--name")
        try:
            folder = await asyncio.to_thread(new_folder)
        except OSError as error:
            raise CommandError(f"no folder for a dry step can be made: {error.strerror}") from error
        run = folder / "dry"
        training = asyncio.create_task(
            self._workbench.commands.run(
                "run", *parts, "--steps", "1", "--new", "--name", "dry", "--json",
                environment={"LMPLAY_RUNS": str(folder)},
            )
        )  # fmt: skip
        try:
            while True:
                activity, told = await asyncio.to_thread(look_at_dry_run, run)
                if told or training.done():
                    break
                self._say(f"one step in a run that is thrown away: {activity}...", "primary")
                await asyncio.wait([training], timeout=_LOOK_SECONDS)
            if told is None:
                await training  # raises what went wrong before the step
            self._say(*(told or ("the step was not taken", "bad")))
        finally:
            training.cancel()
            throw_away(folder)  # not awaited: it has to happen when the workbench is left meanwhile, too


def _without(parts: list[str], *options: str) -> list[str]:
    """Arguments without these options and their values."""
    found: list[str] = []
    skip = False
    for part in parts:
        if not skip and part not in options:
            found.append(part)
        skip = not skip and part in options
    return found
