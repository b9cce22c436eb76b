"""The main loop with real workers, engines and commands: by keyboard alone, and by mouse alone."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widget import Widget

from lmplay_tui.app import Workbench
from lmplay_tui.lines import plain
from lmplay_tui.screens.chat import ChatScreen
from lmplay_tui.services.commands import Commands
from lmplay_tui.services.talking.engine import Engine
from lmplay_tui.widgets.bars import KeyBar
from lmplay_tui.widgets.grid import Grid
from tests.tui.support import description_of, drive, make_app, plant_run, text_of, until, until_text

_PATIENT = 240.0
"""Seconds: a process that imports torch takes its time on a busy machine."""
_TRAIN = {
    "sequence_length": 32,
    "batch_size": 4,
    "mini_batch_size": 4,
    "lr": 3e-3,
    "warmup_steps": 2,
    "validation_interval": 16,
    "save_interval": 64,
    "sample_tokens": 4,
}


class RealCommands(Commands):
    """Real ones, but for counting the layers of models that this test doesn't train."""

    def __init__(self, *counted: str) -> None:
        super().__init__()
        self._counted = counted

    async def json(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
        if arguments[0] == "describe" and arguments[1] not in self._counted:
            return description_of(arguments[1])
        return await super().json(*arguments, environment=environment)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan in the current folder that is longer than any test waits for."""
    docs = {"source": "builtin", "args": {"name": "pydocs"}, "validation": {"share": 0.1, "max_tokens": 1024}}
    stages = [{"name": "learn", "datasets": {"docs": 1.0}, "samples": 40_000, "train": _TRAIN}]
    file = tmp_path / "evening.json"
    file.write_text(json.dumps({"version": 1, "datasets": {"docs": docs}, "stages": stages}))
    return file


def real_app(tmp_path: Path, mode: str, *counted: str) -> Workbench:
    app = make_app(tmp_path, mode=mode, commands=RealCommands(*counted), fps=4)
    app.state.set("experiments.cursor", "test_runner")
    return app


async def see(pilot: Pilot[None], text: str) -> None:
    await until_text(pilot, text, seconds=_PATIENT)


async def type_in(pilot: Pilot[None], text: str) -> None:
    names = {" ": "space", ".": "full_stop", "=": "equals_sign", "-": "minus", "_": "underscore", "@": "at"}
    await pilot.press(*(names.get(letter, letter) for letter in text))


async def dialog_is(pilot: Pilot[None], title: str) -> None:
    await until(pilot, lambda: len(pilot.app.screen_stack) > 1 and title in text_of(app_of(pilot)), what=title)


def app_of(pilot: Pilot[None]) -> Workbench:
    assert isinstance(pilot.app, Workbench)
    return pilot.app


def step_of(app: Workbench, name: str) -> int:
    run = app.snapshot.get(name) if app.snapshot is not None else None
    return run.status.step if run is not None else 0


def engine_of(app: Workbench) -> Engine:
    assert isinstance(app.screen, ChatScreen)
    return app.screen.talk.first.engine


def worse_copy(run: Path, name: str, *, by: float) -> None:
    """The same run with all its validation losses higher, and with another setting."""
    copy = run.with_name(name)
    shutil.copytree(run, copy, symlinks=True)
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    worse = [{**row, "loss": row["loss"] + by} if row["kind"] == "validate" else row for row in rows]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in worse))
    asked = json.loads((copy / "run.json").read_text())
    asked["config"]["stages"][0]["train"]["weight_decay"] = 0.5
    (copy / "run.json").write_text(json.dumps(asked))


def test_from_text_to_talk_by_keyboard_alone(tmp_path: Path, plan: Path) -> None:
    async def prepare(pilot: Pilot[None], app: Workbench) -> None:
        assert app.current_mode == "data"
        await see(pilot, "evening")
        await pilot.press("home", "p")
        await see(pilot, "evening is prepared")
        await see(pilot, "40.0k samples")
        await pilot.press("x", "v", "v")
        await see(pilot, "docs, row 0 of")
        await pilot.press("right_square_bracket")
        await see(pilot, "docs, row 1 of")

    async def launch(pilot: Pilot[None], app: Workbench) -> None:
        await pilot.press("l")
        await dialog_is(pilot, "Launch")
        await see(pilot, "10,000 steps")
        await see(pilot, "of memory")
        await focus(pilot, app, "field-name")
        await type_in(pilot, "first")
        await focus(pilot, app, "field-sets")
        await type_in(pilot, "train.lr=0.002")
        # What it is, told apart from the plan's, and the line that does the same in any shell.
        await see(pilot, "--name first --set train.lr=0.002")
        assert f"{plan.name}" in text_of(app)
        await pilot.press("f5")
        await until(pilot, lambda: app.current_mode == "run", what="the run's screen", seconds=_PATIENT)

    async def watch_and_steer(pilot: Pilot[None], app: Workbench) -> None:
        await until(pilot, lambda: step_of(app, "first") >= 5, what="five steps", seconds=_PATIENT)
        await see(pilot, "● train")
        await pilot.press("p")
        await see(pilot, "pause: done")
        assert "paused" in text_of(app)
        paused_at = step_of(app, "first")
        await pilot.press("C")
        await see(pilot, "checkpoint: done")
        await pilot.press("E")
        await dialog_is(pilot, "Change first")
        assert "train.lr=0.002" in text_of(app)
        await pilot.press(*["backspace"] * 5)
        await type_in(pilot, "0.001")
        await pilot.press("enter")
        await see(pilot, "set train.lr=0.001: done")
        await pilot.press("p")
        await see(pilot, "resume: done")
        await until(pilot, lambda: step_of(app, "first") > paused_at, what="more steps", seconds=_PATIENT)
        await pilot.press("S")
        await dialog_is(pilot, "Stop the run?")
        await pilot.press("enter")
        await see(pilot, "stopped")

    async def set_up_another_like_it(pilot: Pilot[None], app: Workbench) -> None:
        await pilot.press("3")
        await until(pilot, lambda: app.current_mode == "runs", what="the list of runs")
        await until(pilot, lambda: app.screen.query_one("#runs", Grid).cursor == "first", what="the run in the list")
        await pilot.press("l")
        await dialog_is(pilot, "Launch")
        # By its path, and as it was changed on the way.
        await see(pilot, plan.name)
        await see(pilot, "--lr 0.001")
        await pilot.press("escape")

    async def compare(pilot: Pilot[None], app: Workbench) -> None:
        await until(pilot, lambda: len(app.screen_stack) == 1, what="the end of the dialog")
        worse_copy(tmp_path / "runs" / "first", "worse", by=0.25)
        await see(pilot, "worse")
        await pilot.press("home", "space", "space", "5")
        await see(pilot, "nats")
        assert "-0.2500" in text_of(app)  # of the better one, from the other
        await pilot.press("v")
        await see(pilot, "train.weight_decay")
        await pilot.press("v", "x")
        await see(pilot, "samples")

    async def talk(pilot: Pilot[None], app: Workbench) -> None:
        await pilot.press("3")
        await until(pilot, lambda: app.current_mode == "runs", what="the list of runs")
        await until(pilot, lambda: app.screen.query_one("#runs", Grid).has_focus, what="the list to have the focus")
        app.screen.query_one("#runs", Grid).move_to("first")
        await pilot.press("M")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen), what="the chat")
        app.screen.query_one("#max_tokens").set_value(16)  # type: ignore[attr-defined]
        await type_in(pilot, "The statement")
        await pilot.press("enter")
        await see(pilot, "16 tokens")
        await see(pilot, "tok/s")
        await pilot.press("f7")
        await until(pilot, lambda: text_of(app).count("%") >= 3, what="alternatives with their probabilities")
        await pilot.press("f7")
        # The engine is killed: the conversation stays, another engine goes on with it.
        pid = engine_of(app).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(pilot, lambda: not engine_of(app).running, what="the end of the engine")
        await type_in(pilot, "and")
        await pilot.press("enter")
        await until(
            pilot, lambda: text_of(app).count("16 tokens") == 2, what="the answer of the next", seconds=_PATIENT
        )
        await pilot.press("ctrl+t")
        await see(pilot, "seed 1")
        await pilot.press("f2")
        await until(pilot, lambda: app.screen.query_one("#prompt").text == "and", what="the turn to edit")  # type: ignore[attr-defined]

    async def evening(pilot: Pilot[None], app: Workbench) -> None:
        for part in (prepare, launch, watch_and_steer, set_up_another_like_it, compare, talk):
            await part(pilot, app)

    drive(real_app(tmp_path, "data", "test_runner"), evening, size=(100, 40))


async def focus(pilot: Pilot[None], app: Workbench, name: str) -> None:
    """Tab until the focus is there."""
    for _ in range(40):
        if app.focused is not None and app.focused.id == name:
            return
        await pilot.press("tab")
    raise AssertionError(f"tab never comes to {name}")


async def click_key(pilot: Pilot[None], app: Workbench, title: str) -> None:
    """Click an action in the line at the bottom of what is shown."""
    bar = app.screen.query_one(KeyBar)
    await until(pilot, lambda: f" {title}  " in bar.text, what=f"{title} in the line of keys")
    await pilot.click(bar, offset=(bar.text.index(f" {title}  ") + 1, 0))


async def click_text(pilot: Pilot[None], app: Workbench, text: str, *, times: int = 1) -> None:
    """Click where that stands on the screen."""
    await see(pilot, text)
    lines = text_of(app).splitlines()
    row = next(index for index, line in enumerate(lines) if text in line)
    await pilot.click(offset=(lines[row].index(text), row), times=times)


def test_launch_watch_steer_compare_by_mouse_alone(tmp_path: Path, plan: Path) -> None:
    plant_run(tmp_path / "runs", "planted", steps=100)
    plant_run(tmp_path / "runs", "other", steps=100, lr=2e-3, loss=lambda step: 4 + 7 * math.exp(-step / 40))

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        app.state.set("launch", {"plan": str(plan), "device": "cpu", "experiment": "test_runner", "name": "clicked"})
        await click_text(pilot, app, "1 Experiments")
        await click_text(pilot, app, "test_runner")
        await click_text(pilot, app, "Layers")
        await see(pilot, "Embedding")
        await click_key(pilot, app, "Launch")
        await dialog_is(pilot, "Launch")
        await see(pilot, "10,000 steps")
        await click_key(pilot, app, "Start")
        await until(pilot, lambda: app.current_mode == "run", what="the run's screen", seconds=_PATIENT)
        await until(pilot, lambda: step_of(app, "clicked") >= 5, what="five steps", seconds=_PATIENT)
        await click_key(pilot, app, "Pause")
        await see(pilot, "pause: done")
        await click_text(pilot, app, "Events")
        await see(pilot, "accepted")
        chart: Widget = app.screen.query_one("#chart0")
        await pilot.click(chart, offset=(40, 5))
        assert "tokens/s" in plain(app.screen.query_one("#head").lines[2])  # type: ignore[attr-defined]
        await click_key(pilot, app, "Stop")
        await dialog_is(pilot, "Stop the run?")
        await click_key(pilot, app, "OK")
        await see(pilot, "stopped")
        await click_text(pilot, app, "3 Runs")
        for name in ("planted", "other"):
            await click_text(pilot, app, f" {name} ")
            await click_key(pilot, app, "Mark")
        await click_key(pilot, app, "Compare")
        await until(pilot, lambda: app.current_mode == "compare", what="the comparison")
        await see(pilot, "nats")
        await click_text(pilot, app, "Settings that differ")
        await see(pilot, "train.lr")

    drive(real_app(tmp_path, "runs"), do, size=(160, 50))
