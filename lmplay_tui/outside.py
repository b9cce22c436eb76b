"""What goes out of the workbench: words to the person, text to clipboards, charts into files, a file into $EDITOR."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.app import App, SuspendNotSupported
from textual.notifications import Notification, Notifications

if TYPE_CHECKING:
    from textual.notifications import SeverityLevel
    from textual.screen import Screen

    from lmplay_tui.widgets.chart import Chart


_LAST_MOMENT = 0.5


class Told(Notifications):
    """What is told, without what is about to go: no toast is made for that any more.

    A screen that comes into sight makes toasts of what is still told. Textual works out the time that one has left
    after asking whether it has any, and a timer of less than no time never returns (textual/timer.py).
    """

    def __iter__(self) -> Iterator[Notification]:
        return (one for one in super().__iter__() if one.time_left > _LAST_MOMENT)


class Outside(App[None]):
    """The part of the application that others than screens see."""

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._notifications = Told()

    async def push_screen_wait(self, screen: Screen[Any] | str, *, mode: str | None = None) -> Any:
        # Textual first waits for screens that are being removed, in the task of the worker that asks. The removal of
        # such a screen cancels its workers: a worker of its own would take the removal along, and that the application.
        await asyncio.shield(asyncio.create_task(self._flush_next_callbacks()))
        return await super().push_screen_wait(screen, mode=mode)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,  # noqa: ARG002 - as Textual calls it
    ) -> None:
        """What is told is never markup: it names files, settings and errors, which hold brackets of their own."""
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)

    def export_chart(self, chart: Chart, name: str) -> None:
        """Write what a chart shows as CSV, and as PNG where matplotlib is there, into the current folder."""
        self.run_worker(self._export(chart, name), group="export")

    async def _export(self, chart: Chart, name: str) -> None:
        from lmplay_tui.services.chart_files import write_chart

        try:
            self.notify(await write_chart(chart.data, chart.view, name, Path.cwd()), timeout=6)
        except OSError as error:
            self.notify(f"{error.filename} can't be written: {error.strerror}", severity="error")

    def copy(self, text: str) -> None:
        """Copy to the clipboards that can be reached from here, and to a file."""
        self.copy_to_clipboard(text)
        self.run_worker(self._hand_over(text), group="copy")

    async def _hand_over(self, text: str) -> None:
        from lmplay_tui.services.clipboard import hand_over

        places = " and ".join(await hand_over(text))
        lines = text.count("\n") + 1
        copied = f"copied {lines:,} lines" if lines > 1 else "copied"
        self.notify(copied + (f", also into {places}" if places else ""), timeout=3)

    def edit(self, file: Path) -> None:
        """Open a file in $EDITOR, the screen stepping aside for it."""
        editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
        problem = ""
        try:
            with self.suspend():
                try:
                    subprocess.run([*editor, str(file)], check=False)
                except OSError as error:  # caught in here: the screen only comes back from a suspension that ends well
                    problem = f"{editor[0]}: {error.strerror or error}"
        except SuspendNotSupported as error:
            problem = str(error)
        if problem:
            self.notify(f"{file} can't be edited here: {problem}", severity="error", timeout=8)
