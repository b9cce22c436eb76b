"""The command palette: every action that works where one is, and going to any screen, run or experiment by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from textual.await_complete import AwaitComplete
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.types import IgnoreReturnCallbackType
from textual.worker import Worker

from lmplay_tui.actions import BY_ID
from lmplay_tui.keymap import key_name

_MOST_RUNS = 200


class Palette(CommandPalette):
    """Closed once, as every `Modal`: a key that is still on its way to it must not close what lies below."""

    def run_worker(self, work: Any, *arguments: Any, **options: Any) -> Worker[Any]:
        # The palette may be closed while commands are looked for: Textual then misses the list that it puts them in,
        # which would end the workbench.
        return super().run_worker(work, *arguments, **{**options, "exit_on_error": False})

    def dismiss(self, result: None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_active else AwaitComplete()


class WorkbenchCommands(Provider):
    """One provider for all: (what is matched, what it does, what is said of it)."""

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for text, do, told in self._commands():
            score = matcher.match(text)
            if score > 0:
                yield Hit(score, matcher.highlight(text), do, help=told)

    async def discover(self) -> Hits:
        for text, do, told in self._actions():
            yield DiscoveryHit(text, do, help=told)

    def _commands(self) -> Iterator[tuple[str, IgnoreReturnCallbackType, str]]:
        yield from self._actions()
        app: Any = self.app
        for name in sorted(app.available_themes):
            yield f"Theme: {name}", partial(setattr, app, "theme", name), "Colours of the whole workbench."
        if app.snapshot is not None:
            for run in app.snapshot.runs[:_MOST_RUNS]:
                yield f"Run: {run.name}", partial(app.show_run, run.name), f"{run.experiment}, {run.state}"
        for one in app.index.now.experiments:
            yield f"Experiment: {one.name}", partial(app.show_experiment, one.name), one.description

    def _actions(self) -> Iterator[tuple[str, IgnoreReturnCallbackType, str]]:
        app: Any = self.app
        seen = set()
        for active in self.screen.active_bindings.values():
            action = BY_ID.get(active.binding.id or "")
            if action is None or action.id in seen or not active.enabled or action.place == "grid":
                continue
            seen.add(action.id)
            key = key_name(app.keymap.get(action.id, action.keys).split(",")[0].strip())
            do = partial(app.run_action, active.binding.action, active.node)
            yield f"{action.title}  ({key})", do, action.help
