"""How every screen looks at three sizes and in four states, as text that a diff shows.

`LMPLAY_SNAPSHOTS=update python -m pytest tests/tui/test_snapshots.py` writes them anew.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from textual.color import Color
from textual.pilot import Pilot
from textual.theme import Theme

from lmplay.runs import RunSummary
from lmplay_tui.app import Workbench
from lmplay_tui.lines import Line
from lmplay_tui.theme import DARK, LIGHT, NUM_SERIES, Palette
from lmplay_tui.views.run import about_lines
from tests.tui.support import (
    FakeCommands,
    check_snapshot,
    drive,
    make_app,
    plant_live_run,
    plant_many_runs,
    plant_run,
    text_of,
    until_text,
)
from tests.tui.test_data_screen import data_answer, plans_answer

SIZES = [(80, 24), (120, 40), (200, 50)]


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Workbench, "where", "~/runs")
    monkeypatch.setenv("LMPLAY_CACHE", str(tmp_path / "cache"))

    def about(run: RunSummary, width: int) -> list[Line]:
        return about_lines(replace(run, path=Path("runs") / run.name, created=None), width)

    monkeypatch.setattr("lmplay_tui.screens.runs.about_lines", about)


async def until_still(pilot: Pilot[None], app: Workbench) -> None:
    """Wait until nothing on the screen has changed for a while."""
    before, same = "", 0
    while same < 6:
        await pilot.pause(0.05)
        now = text_of(app)
        same = same + 1 if now == before else 0
        before = now


async def look_at(pilot: Pilot[None], app: Workbench, screens: dict[str, tuple[str, ...]], state: str) -> None:
    """Go to each screen by its key, wait for what comes last, and hold it against its snapshot."""
    for name, (key, *texts) in screens.items():
        await pilot.press(key)
        for text in texts:
            await until_text(pilot, text)
        await until_still(pilot, app)
        check_snapshot(app, f"{name}-{state}" if state else name)
        if name == "launch":
            await pilot.press("escape")


@pytest.mark.parametrize("size", SIZES)
def test_every_screen_looks_as_it_did(tmp_path: Path, size: tuple[int, int]) -> None:
    runs = tmp_path / "runs"
    for order, (name, seed, lr) in enumerate((("base", 0, 1e-3), ("base-again", 1, 1e-3), ("wider", 0, 2e-3))):
        plant_run(runs, name, seed=seed, lr=lr, order=order, stages=("read", "tune"))
    plant_live_run(runs, "live", order=5, updated=time.time() + 600)  # never silent, on a busy machine either

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        app.marks.set("marked", ["base", "base-again", "wider"])
        app.marks.set("baseline", "base")
        app.state.set("run.view", "events")
        screens = {
            "experiments": ("1", "28.0k"),
            "launch": ("2", "a checkpoint"),
            "runs": ("3", "─live─", "p Pause", "running · learn · cpu"),
            "run": ("4", "device=cpu" if size[1] > 24 else "checkpoint=100", "p Pause"),
            "compare": ("5", "+0.0000", "95% interval"),
            "data": ("7", "250.0k"),
        }
        await look_at(pilot, app, screens, "")
        await pilot.press("6")
        await until_text(pilot, "temperature")
        await until_still(pilot, app)
        check_snapshot(app, "chat")

    commands = FakeCommands({"plans": plans_answer, "data": data_answer, "settings": []})
    drive(make_app(tmp_path, commands=commands), do, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_every_screen_says_what_to_do_when_there_is_nothing(tmp_path: Path, size: tuple[int, int]) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        screens = {
            "runs": ("3", "No runs yet"),
            "run": ("4", "no run yet"),
            "compare": ("5", "mark"),
            "chat": ("6", "Say"),
        }
        await look_at(pilot, app, screens, "empty")

    drive(make_app(tmp_path, mode="runs"), do, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_crashed_runs_and_runs_without_a_number_are_told_from_afar(tmp_path: Path, size: tuple[int, int]) -> None:
    runs = tmp_path / "runs"
    error = "OutOfMemoryError: CUDA out of memory; halve train.mini_batch_size, now 8"
    plant_run(runs, "crashed", steps=90, total=200, state="failed", error=error, order=1)
    plant_run(runs, "diverged", steps=120, loss=lambda step: 4.0 - step / 50 if step < 80 else float("nan"), order=2)
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text("{")

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        app.marks.set("cursor", "crashed")
        for name in ("crashed", "diverged"):
            app.show_run(name)
            await until_text(pilot, name)
            await until_text(pilot, "train ")
            await until_text(pilot, "validated")
            await until_still(pilot, app)
            check_snapshot(app, f"run-{name}")
        await look_at(pilot, app, {"runs": ("3", "─crashed─", "OutOfMemoryError")}, "crashed")

    app = make_app(tmp_path, mode="run")
    app.state.set("run.view", "events")
    drive(app, do, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_a_thousand_runs_are_a_list_like_any(tmp_path: Path, size: tuple[int, int]) -> None:
    plant_many_runs(tmp_path / "runs", 1000)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "run-0999")
        await pilot.press("end")
        await until_text(pilot, "─run-0000─")
        await until_still(pilot, app)
        check_snapshot(app, "runs-thousand")

    drive(make_app(tmp_path, mode="runs"), do, size=size)


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_all_inks_can_be_read_on_their_background(theme: Theme) -> None:
    variables = {**theme.to_color_system().generate(), **theme.variables}
    palette = Palette(variables, dark=theme.dark, ansi=False)
    background = Color.parse(variables["background"])
    for ink in ("muted", "accent", "primary", "second", "good", "warn", "bad", *(f"s{n}" for n in range(NUM_SERIES))):
        colour = palette.style(ink).color
        assert colour is not None
        assert contrast(Color.from_rich_color(colour), background) >= 3.0, ink


_TANGO = (
    "2e3436 cc0000 4e9a06 c4a000 3465a4 75507b 06989a d3d7cf 555753 ef2929 8ae234 fce94f 729fcf ad7fa8 34e2e2 eeeeec"
)
"""The sixteen colours of a widespread terminal."""


@pytest.mark.parametrize(("name", "background"), [("ansi-dark", "#000000"), ("ansi-light", "#ffffff")])
def test_inks_of_the_terminals_own_colours_can_be_read(name: str, background: str) -> None:
    palette = Palette({}, dark=name == "ansi-dark", ansi=True)
    names = [f"s{number}" for number in range(NUM_SERIES)]
    for ink in ("accent", "primary", "second", "good", "warn", "bad", "key", *names):
        colour = palette.style(ink).color
        assert colour is not None
        assert colour.number is not None
        shown = Color.parse(f"#{_TANGO.split()[colour.number]}")
        assert contrast(shown, Color.parse(background)) >= 2.7, ink
    assert len({palette.style(ink).color for ink in names}) == NUM_SERIES


def contrast(one: Color, other: Color) -> float:
    """The ratio of WCAG 2.2 (success criterion 1.4.3)."""

    def luminance(colour: Color) -> float:
        parts = [value / 255 for value in colour.rgb]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
