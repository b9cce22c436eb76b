"""From screen to screen: what leads there, and the marks that go along."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lmplay.utils.errors import LMPlayError
from lmplay_tui.options import Options
from lmplay_tui.outside import Outside
from lmplay_tui.state import RootState, State

if TYPE_CHECKING:
    from lmplay.runs import RunSummary


class Wayfinding(Outside):
    """The part of the application that screens ask to go elsewhere."""

    options: Options
    state: State
    marks: RootState
    """What is kept of this folder of runs: marks, colours, the run that is shown."""

    def look_now(self) -> None:
        raise NotImplementedError

    def action_show(self, mode: str) -> None:
        """Go to a screen; the launch form is a dialog over the one that is shown."""
        if mode == "launch":
            self.open_launch()
            return
        while len(self.screen_stack) > 1:
            self.pop_screen()
        self.state.set("mode", mode)
        if mode == self.current_mode:
            self.look_now()  # another screen does so when it comes into sight
        self.switch_mode(mode)

    def show_run(self, name: str) -> None:
        """Go to one run."""
        self.marks.set("shown", name)
        self.action_show("run")

    def toggle_mark(self, name: str) -> bool:
        """Mark a run for the comparison, or take the mark away; True when it is marked now."""
        marked = [str(one) for one in self.marks.get("marked", [])]
        if name in marked:
            marked.remove(name)
        else:
            marked.append(name)
        self.marks.set("marked", marked)
        self.notify(f"{name} is {'marked' if name in marked else 'no longer marked'} for comparing", timeout=2)
        return name in marked

    def run_renamed(self, before: str, name: str) -> None:
        """What was marked, pinned, coloured or chosen under the name before stays so."""
        for key in ("cursor", "shown", "baseline", "chat"):
            if self.marks.get(key, "") == before:
                self.marks.set(key, name)
        for key in ("marked", "pinned"):
            kept = self.marks.get(key, [])
            self.marks.set(key, [name if one == before else one for one in kept])
        colours = self.marks.get("colours", {})
        self.marks.set("colours", {name if one == before else one: colour for one, colour in colours.items()})

    def open_chat(self, name: str) -> None:
        """Talk to the newest checkpoint of a run."""
        self.marks.set("chat", name)
        self.action_show("chat")

    def show_experiment(self, name: str) -> None:
        """Go to one experiment."""
        self.state.set("experiments.cursor", name)
        self.action_show("experiments")

    def open_launch(self, *, experiment: str = "", plan: str = "", like: RunSummary | None = None) -> None:
        """The form that sets up a run; with `like`, filled in as that run was."""
        if self.options.readonly:
            self.notify("Started with --readonly: nothing can be launched.", severity="warning")
        else:
            self.run_worker(self._launch(experiment, plan, like), group="launch", exclusive=True)

    async def _launch(self, experiment: str, plan: str, like: RunSummary | None) -> None:
        from lmplay.runs import read_run_file
        from lmplay_tui.dialogs.launch import LaunchScreen
        from lmplay_tui.dialogs.launch_form import values_like

        kept = {str(key): str(value) for key, value in self.state.get("launch", {}).items()}
        values = {"plan": kept.get("plan") or "quickstart", "device": "auto"}
        if like is not None:
            try:
                values = values_like(await asyncio.to_thread(read_run_file, like.path))
            except LMPlayError as error:
                self.notify(str(error), severity="error")
                return
        elif not experiment or experiment == kept.get("experiment"):
            values = kept or values
        if experiment or not values.get("experiment"):
            values["experiment"] = experiment or self.state.get("experiments.cursor", "")
        name = await self.push_screen_wait(LaunchScreen({**values, **({"plan": plan} if plan else {})}))
        if name:
            self.show_run(name)
            self.look_now()
