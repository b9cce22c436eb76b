"""Plans of one's own: opening one by its path, a copy under another name, changing it in $EDITOR."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lmplay.utils.errors import LMPlayError
from lmplay_tui.dialogs.asking import TextDialog
from lmplay_tui.screens.base import WorkbenchScreen
from lmplay_tui.services.plan_shelf import ShelvedPlan, copy_plan


class PlanFilesScreen(WorkbenchScreen):
    """A screen with a list of plans."""

    @property
    def current(self) -> ShelvedPlan | None:
        """The plan under the cursor."""
        raise NotImplementedError

    def action_renew(self) -> None:
        """Read the plans again; the cursor goes to the one that the state names `data.cursor`."""
        raise NotImplementedError

    def action_open(self) -> None:
        self.begin(self._open, "dialog")

    async def _open(self) -> None:
        typed = await self.app.push_screen_wait(TextDialog("Open a plan", "Path of a plan file.", problem=_why_no_file))
        if typed:
            path = str(Path(typed).expanduser().absolute())
            opened = [one for one in self.workbench.state.get("data.opened", []) if one != path]
            self.workbench.state.set("data.opened", [*opened, path])
            self.workbench.state.set("data.cursor", path)
            self.action_renew()

    def action_edit(self) -> None:
        plan = self.current
        if plan is None:
            return
        if plan.ready:
            self.notify(f"{plan.name} comes with lmplay; n makes a copy that is yours", timeout=4)
            return
        self.workbench.edit(plan.file)
        self.action_renew()

    def action_new(self) -> None:
        plan = self.current
        if plan is not None:
            self.run_worker(self._new(plan), group="dialog")

    async def _new(self, plan: ShelvedPlan) -> None:
        """A copy in the current folder, opened in the editor."""
        text = f"A copy of {plan.name}, in {Path.cwd()}, under the name"
        name = await self.app.push_screen_wait(TextDialog("New plan", text, placeholder="my_plan"))
        if not name:
            return
        try:
            file = await asyncio.to_thread(copy_plan, plan, Path.cwd(), name)
        except LMPlayError as error:
            self.notify(str(error), severity="error", timeout=8)
            return
        self.workbench.state.set("data.cursor", str(file))
        self.workbench.edit(file)
        self.action_renew()


def _why_no_file(typed: str) -> str:
    return "" if Path(typed).expanduser().is_file() else f"There is no file {typed}."
