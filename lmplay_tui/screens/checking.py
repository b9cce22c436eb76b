"""Asking whether an experiment is sound: its checks, as they come in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmplay_tui.screens.base import WorkbenchScreen
from lmplay_tui.services.commands import CommandError
from lmplay_tui.views.experiments import CHECKS


class CheckingScreen(WorkbenchScreen):
    """A screen that asks the checks of one experiment at a time, and keeps what all answered."""

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, dict[str, Mapping[str, Any]]] = {}
        """Experiment -> check -> what it said."""
        self.gradients: dict[str, list[Mapping[str, Any]]] = {}
        self._checking: str | None = None
        self.tiny = True
        """Whether models are checked scaled down."""

    def show_detail(self) -> None:
        """Something is known that was not."""
        raise NotImplementedError

    def begin_check(self, name: str) -> None:
        """Ask the checks of an experiment, in place of those that are being asked."""
        self.run_worker(self._check(name), group="check", exclusive=True)

    def running_check(self, name: str) -> str | None:
        """The check that is being asked of this experiment now."""
        if self._checking != name:
            return None
        return next((check for check in CHECKS if check not in self.results.get(name, {})), None)

    async def _check(self, name: str) -> None:
        self.results[name], self._checking = {}, name
        self.gradients.pop(name, None)
        self.show_detail()
        size = ("--tiny",) if self.tiny else ()
        try:
            async for value in self.workbench.commands.stream("check", name, *size, "--json", "--stream"):
                if "checks" in value:
                    self.results[name] = {check["name"]: check for check in value["checks"]}
                    self.gradients[name] = list(value.get("gradients", ()))
                else:
                    self.results[name][value["name"]] = value
                self.show_detail()
        except CommandError as error:
            self.notify(f"{name} could not be checked: {error}", severity="error", timeout=8)
        finally:
            if self._checking == name:  # else another one is being asked in its place
                self._checking = None
            if self.is_attached:
                self.show_detail()
        failed = [check for check, result in self.results[name].items() if not result.get("ok")]
        if failed:
            self.notify(f"{name}: {', '.join(failed)} failed", severity="error", timeout=8)

    def action_stop_check(self) -> None:
        self.workers.cancel_group(self, "check")

    def action_tiny(self) -> None:
        self.tiny = not self.tiny
        self.show_detail()
        size = "scaled down, in seconds" if self.tiny else "in the model's own size: minutes for a large one"
        self.notify(f"checks {size}", timeout=3)
