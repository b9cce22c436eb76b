"""Labels and housekeeping of one run: tags, a note, another name, putting it away, deleting it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lmplay.runs import RunSummary
from lmplay.runs.labels import archive_run, change_labels, check_tag, delete_run, rename_run
from lmplay.runs.layout import free_path
from lmplay.utils.errors import LMPlayError
from lmplay_tui.dialogs.asking import Question, TextDialog, TypedConfirmation, complaint_of
from lmplay_tui.screens.steering import SteeringScreen


class LabellingScreen(SteeringScreen):
    """A screen on which the run that is steered can also be labelled and put away."""

    def renamed(self, name: str) -> None:
        """The run that is steered has another name now."""

    def action_tag(self) -> None:
        self._edit(self._tag)

    def action_note(self) -> None:
        self._edit(self._note)

    def action_rename(self) -> None:
        self._edit(self._rename)

    def action_archive(self) -> None:
        self._edit(self._archive)

    def action_delete(self) -> None:
        self._edit(self._delete)

    def _edit(self, do: Callable[[RunSummary], Awaitable[None]]) -> None:
        run = self.steered
        if run is not None:
            self.run_worker(self._changing(do, run), group="dialog")

    async def _changing(self, do: Callable[[RunSummary], Awaitable[None]], run: RunSummary) -> None:
        """Ask and do it; what can't be done is said in one line."""
        try:
            await do(run)
        except LMPlayError as error:
            self.notify(str(error), severity="error", timeout=8)
        self.workbench.store.forget(run.path)
        self.workbench.look_now()

    async def _tag(self, run: RunSummary) -> None:
        text = "Tags, separated by blanks; one with a minus before it is taken away."
        shown = " ".join(run.labels.tags)
        dialog = TextDialog(
            f"Tags of {run.name}",
            text,
            value=shown,
            problem=lambda typed: complaint_of(lambda: [check_tag(tag) for tag in _tags(typed, run)[0]]),
        )
        typed = await self.app.push_screen_wait(dialog)
        if typed is not None:
            add, remove = _tags(typed, run)
            await asyncio.to_thread(change_labels, run.path, add=add, remove=remove)

    async def _note(self, run: RunSummary) -> None:
        typed = await self.app.push_screen_wait(TextDialog(f"Note to {run.name}", value=run.labels.note))
        if typed is not None:
            await asyncio.to_thread(change_labels, run.path, note=typed)

    async def _rename(self, run: RunSummary) -> None:
        def problem(typed: str) -> str:
            return "" if typed in ("", run.name) else complaint_of(lambda: free_path(run.path.parent, typed))

        typed = await self.app.push_screen_wait(TextDialog(f"Rename {run.name}", value=run.name, problem=problem))
        if typed and typed != run.name:
            await asyncio.to_thread(rename_run, run.path, typed)
            self.workbench.run_renamed(run.name, typed)
            self.renamed(typed)

    async def _archive(self, run: RunSummary) -> None:
        text = f"{run.name} leaves the list, untouched; lmplay runs --archived shows it."
        if await self.app.push_screen_wait(Question("Archive the run?", text)):
            await asyncio.to_thread(archive_run, run.path)

    async def _delete(self, run: RunSummary) -> None:
        text = "The run and its checkpoints are deleted for good. Type its name:"
        if await self.app.push_screen_wait(TypedConfirmation("Delete the run?", text, run.name)):
            await asyncio.to_thread(delete_run, run.path)
            self.notify(f"{run.name} is deleted", timeout=3)


def _tags(typed: str, run: RunSummary) -> tuple[list[str], list[str]]:
    """(tags to add, tags to take away): what was there and was wiped out of the line goes too."""
    words = typed.split()
    add = [word for word in words if not word.startswith("-")]
    return add, [
        *(word[1:] for word in words if word.startswith("-")),
        *(tag for tag in run.labels.tags if tag not in add),
    ]
