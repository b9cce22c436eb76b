"""Steering a run, the same on the list of runs and on a run's own screen: pause, save, stop, kill, change settings.

Whatever is asked is shown as requested, accepted at step N, done: the worker acts between two steps.
"""

from __future__ import annotations

import asyncio
import sys

from lmplay.runs import RunSummary, kill_worker, spawn_worker
from lmplay.utils.errors import LMPlayError
from lmplay_tui.dialogs.asking import Question, TextDialog, TypedConfirmation
from lmplay_tui.screens.charting import ChartingScreen

_CHANGEABLE = (
    "train.lr=1e-4, or another setting that can change while a run goes: train.min_lr_ratio, train.weight_decay, "
    "train.grad_clip, train.validation_interval, train.save_interval, train.keep_checkpoints, train.sample_prompt, "
    "train.sample_tokens, limits.steps, limits.samples, limits.tokens."
)

_FOR_LIVE_RUNS = frozenset({"pause", "checkpoint", "validate", "sample", "rate", "stop", "kill"})
_PAUSED = ("paused", "pausing")


class SteeringScreen(ChartingScreen):
    """A screen on which one run is `steered`."""

    @property
    def steered(self) -> RunSummary | None:
        raise NotImplementedError

    def _live(self, what: str) -> RunSummary | None:
        run = self.steered
        if run is None:
            return None
        if not run.status.active:
            self.notify(f"{run.name} is {run.state}: there is nobody to {what}", severity="warning", timeout=4)
            return None
        return run

    def _ask(self, action: str, **arguments: object) -> None:
        run = self._live(action)
        if run is None:
            return
        try:
            self.workbench.requests.ask(run.path, action, **arguments)
        except LMPlayError as error:
            self.notify(str(error), severity="error", timeout=8)
        self.workbench.look_now()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What can't be asked of this run now is not offered."""
        if not super().check_action(action, parameters):
            return False
        run = self.steered
        if action in _FOR_LIVE_RUNS:
            return run is not None and run.status.active and (action != "pause" or run.state not in _PAUSED)
        if action == "unpause":
            return run is not None and run.state in _PAUSED
        if action == "resume_run":
            return run is not None and run.state in ("stopped", "lost", "failed")
        return True

    def action_pause(self) -> None:
        self._ask("pause")

    def action_unpause(self) -> None:
        self._ask("resume")

    def action_checkpoint(self) -> None:
        self._ask("checkpoint")

    def action_validate(self) -> None:
        self._ask("validate")

    def action_sample(self) -> None:
        self._ask("sample")

    def action_stop(self) -> None:
        run = self._live("stop")
        if run is not None:
            self.run_worker(self._stop(run), group="steer")

    async def _stop(self, run: RunSummary) -> None:
        text = f"{run.name} saves a checkpoint after this step and ends. It can go on from there later."
        if await self.app.push_screen_wait(Question("Stop the run?", text)):
            self._ask("stop")

    def action_kill(self) -> None:
        run = self._live("kill")
        if run is not None:
            self.run_worker(self._kill(run), group="steer")

    async def _kill(self, run: RunSummary) -> None:
        text = "Its worker ends at once, without saving: the steps since the last checkpoint are lost. Type its name:"
        if await self.app.push_screen_wait(TypedConfirmation("Kill the run?", text, run.name)):
            try:
                await asyncio.to_thread(kill_worker, run.path)
                self.notify(f"{run.name} was killed", timeout=4)
            except LMPlayError as error:
                self.notify(str(error), severity="error", timeout=8)
            self.workbench.look_now()

    def action_rate(self) -> None:
        run = self._live("change")
        if run is not None:
            self.run_worker(self._change(run), group="steer")

    async def _change(self, run: RunSummary) -> None:
        rate = run.config.get("train.lr", run.config.get(f"{run.status.stage}.train.lr"))
        shown = f"train.lr={rate:g}" if isinstance(rate, float) else "train.lr="
        text = f"From the next step on: {_CHANGEABLE}"
        typed = await self.app.push_screen_wait(
            TextDialog(f"Change {run.name}", text, value=shown, problem=lambda typed: _why_no_setting(typed))
        )
        if typed and typed != shown:
            key, _, value = typed.partition("=")
            self._ask("set", **{key.strip(): _value_of(value.strip())})

    def action_resume_run(self) -> None:
        run = self.steered
        if run is not None:
            self.run_worker(self._resume(run), group="steer")

    async def _resume(self, run: RunSummary) -> None:
        text = f"{run.name} was {run.state} at step {run.status.step:,}. A new worker goes on from its last checkpoint."
        if not await self.app.push_screen_wait(Question("Go on with the run?", text)):
            return
        try:
            await asyncio.to_thread(spawn_worker, run.path, [sys.executable, "-m", "lmplay.train", str(run.path)])
            self.notify(f"{run.name} goes on", timeout=4)
        except LMPlayError as error:
            self.notify(str(error), severity="error", timeout=8)
        self.workbench.look_now()


def _why_no_setting(typed: str) -> str:
    key, equals, value = typed.partition("=")
    return "" if equals and key.strip() and value.strip() else "Give it as key=value, for example train.lr=1e-4"


def _value_of(text: str) -> int | float | str:
    """A number where it is one; the worker checks the rest."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
