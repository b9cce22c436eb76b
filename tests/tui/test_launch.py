"""The launch form: what is typed, what it costs, the command that it is, and a dry step."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from lmplay_tui.app import Workbench
from lmplay_tui.dialogs.launch_form import Known, arguments, problems, values_like
from lmplay_tui.services.commands import CommandError
from lmplay_tui.services.dry_run import look_at_dry_run, new_folder, step_words
from lmplay_tui.widgets.choice import Choice
from lmplay_tui.widgets.fields import Field
from tests.tui.support import (
    FakeCommands,
    description_of,
    drive,
    make_app,
    plant_live_run,
    plant_run,
    text_of,
    until,
    until_text,
)

SETTINGS = [
    {"key": "train.lr", "default": 6e-4, "description": "peak learning rate", "above": 0.0, "choices": []},
    {"key": "train.batch_size", "default": 50, "description": "samples a step", "minimum": 1, "choices": []},
    {"key": "train.mini_batch_size", "default": 4, "description": "samples at once", "minimum": 1, "choices": []},
    {"key": "train.precision", "default": "float32", "description": "of sums", "choices": ["float32", "bfloat16"]},
    {"key": "train.schedule", "default": "constant", "description": "of lr", "choices": ["constant", "cosine"]},
    {"key": "limits.steps", "default": None, "description": "steps at most", "minimum": 0, "choices": []},
]
PLAN = {
    "seed": 0,
    "stages": [
        {
            "rows": 8000,
            "tokens": 1_024_000,
            "steps": 1000,
            "batch_size": 8,
            "sequence_length": 1024,
            "seconds": 500.0,
            "disk": 2_000_000,
            "train": {"lr": 0.003, "batch_size": 8},
        }
    ],
    "datasets": [{"prepared": True}],
}


def described(name: str, *arguments: str) -> dict[str, Any]:
    """As `lmplay describe`: the memory grows with the rows, the parameters with the blocks."""
    blocks = next((int(one.partition("=")[2]) for one in arguments if one.startswith("model.num_blocks=")), 6)
    rows = int(arguments[arguments.index("--mini-batch-size") + 1])
    told = description_of(name, blocks=blocks)
    return {**told, "memory": {**told["memory"], "mini_batch_size": rows, "activations": 0, "total": rows * 2**30}}


def commands_with(run: Any) -> FakeCommands:
    plans = lambda *arguments: PLAN if "show" in arguments else [{"name": "quickstart", "description": "first"}]  # noqa: E731
    return FakeCommands({"settings": SETTINGS, "plans": plans, "describe": described, "run": run})


def test_the_form_tells_what_a_run_takes_as_it_is_changed_and_starts_it(tmp_path: Path) -> None:
    answers: list[Any] = [CommandError("model.num_blocks: 12 does not fit"), "started"]

    def run(*_: str) -> Any:
        return answers.pop(0)

    commands = commands_with(run)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        await pilot.press("l")
        await until_text(pilot, "1.02M tokens, 1,000 steps, about 8 min 20 s")
        await until_text(pilot, "4.00 GiB of memory")
        form = app.screen
        await pilot.press("f1")
        await until_text(pilot, "takes what stands dim in it")
        await pilot.press("escape")
        assert app.screen is form

        async def fill(name: str, text: str) -> None:
            field = form.query_one(f"#field-{name}", Field)
            field.value = text
            await pilot.pause()

        await fill("lr", "-1")
        await until_text(pilot, "above 0")
        await pilot.press("f5")
        assert not [asked for asked in commands.asked if asked[0] == "run"]  # what is seen to be wrong isn't started
        await fill("lr", "0.001")
        await fill("steps", "500")
        await until_text(pilot, "512.0k tokens, 500 steps")
        await fill("mini_batch_size", "2")
        await until_text(pilot, "2.00 GiB of memory")
        await fill("sets", "model.num_blocks=12")
        parameters = 12 * description_of("gpt2ish", blocks=12)["parameters"]
        await until_text(pilot, f"{parameters / 1024:.0f} KiB a checkpoint")
        await until_text(pilot, "learning rate 0.003 → 0.001")
        await pilot.press("f5")
        await until_text(pilot, "12 does not fit")
        await pilot.press("f5")
        await until(pilot, lambda: app.current_mode == "run", what="the run's screen")

    drive(make_app(tmp_path, commands=commands), do, size=(100, 40))
    started = next(asked for asked in reversed(commands.asked) if asked[0] == "run")
    name = started[started.index("--name") + 1]
    typed = ("--mini-batch-size", "2", "--lr", "0.001", "--steps", "500", "--set", "model.num_blocks=12")
    assert [part for part in started if part not in ("--name", name)] == [
        "run",
        "gpt2ish",
        "--plan",
        "quickstart",
        *typed,
        "--detach",
    ]


def test_what_is_no_number_or_not_whole_is_said_before_anything_is_started() -> None:
    known = Known(settings={row["key"]: row for row in SETTINGS}, plan=PLAN)

    def wrong(**values: str) -> dict[str, str]:
        return problems({"experiment": "gpt2ish", **values}, known)

    assert wrong(mini_batch_size="auto") == {}  # a word that means a number is none of a mistake
    assert arguments({"experiment": "gpt2ish", "mini_batch_size": "auto"}, known)[1:] == ["--mini-batch-size", "auto"]
    assert wrong(lr="nan") == {"lr": "'nan' is no number"}
    assert wrong(lr="inf", batch_size="auto") == {"lr": "'inf' is no number", "batch_size": "'auto' is no number"}
    assert wrong(batch_size="2.5", seed="-1") == {"batch_size": "a whole number, please", "seed": "at least 0"}
    assert wrong(steps="1e3") == {}
    assert wrong(sets="train.weight_decy=1") == {"sets": "unknown key train.weight_decy"}
    assert wrong(sets="schnell") == {"sets": "schnell: give it as key=value"}


def test_names_that_cannot_be_are_said_plans_of_ones_own_are_there_and_a_key_empties_the_form(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "first", steps=1)
    (tmp_path / "mine.json").write_text('{"read": {"dataset": "pydocs", "epochs": 1}}')
    commands = commands_with("started")

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        await pilot.press("l")
        await until_text(pilot, "a checkpoint")
        form = app.screen
        fields = {name: form.query_one(f"#field-{name}", Field) for name in ("name", "lr")}
        assert form.query_one("#field-lr", Field).tooltip == "peak learning rate (above 0)"
        for name, complaint in (("first", "already: choose another"), ("läuft", "can't be a run's name")):
            fields["name"].value = name
            await until_text(pilot, complaint)
        await pilot.press("f5")
        assert not [asked for asked in commands.asked if asked[0] == "run"]
        assert form.focused is fields["name"]
        fields["name"].value = "second"
        fields["lr"].value = "1e-4"
        await until_text(pilot, "--lr 1e-4 --name second")
        form.query_one("#field-plan", Choice).focus()
        await pilot.press("enter", *"mine", "enter")
        await until_text(pilot, "mine.json")
        await pilot.press("f4")
        await until(pilot, lambda: not fields["lr"].value and not fields["name"].value, what="an empty form")
        await until(pilot, lambda: "--lr" not in text_of(app) and "mine.json" in text_of(app), what="only the plan")
        # Two quick presses start one run.
        await pilot.press("f5", "f5")
        await until(pilot, lambda: app.current_mode == "run", what="the run's screen")
        assert len([asked for asked in commands.asked if asked[0] == "run"]) == 1

    drive(make_app(tmp_path, commands=commands), do, size=(100, 40))


def test_a_run_of_a_plan_given_by_its_path_is_set_up_again_from_any_folder() -> None:
    asked = {"experiment": "gpt2ish", "request": {"plan": "mine", "train": {"lr": 1e-3}}, "plan": {"name": "mine"}}
    assert values_like({**asked, "plan": {"name": "mine", "folder": "/data/plans"}})["plan"] == "/data/plans/mine.json"
    assert values_like(asked)["plan"] == "mine"
    assert values_like(asked)["lr"] == "0.001"


def test_a_dry_run_of_a_workbench_that_was_killed_is_thrown_away_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = new_folder()
    killed = subprocess.Popen(["true"])
    killed.wait()
    left = tmp_path / mine.name.replace(str(os.getpid()), str(killed.pid))
    (left / "dry").mkdir(parents=True)
    another = new_folder()
    assert set(tmp_path.iterdir()) == {mine, another}


def test_a_dry_run_is_over_with_its_first_step(tmp_path: Path) -> None:
    assert look_at_dry_run(tmp_path / "dry") == ("preparing", None)
    before = plant_live_run(tmp_path, "before", steps=0, activity="compiling")
    assert look_at_dry_run(before) == ("compiling", None)
    after = plant_run(tmp_path, "after", steps=1)
    told = look_at_dry_run(after)[1]
    assert told is not None
    assert told[0].startswith("it works: loss 10.31, gradient norm 1.028")
    text, ink = step_words({"loss": float("nan"), "grad_norm": 1.0}, 2.0**30)
    assert (text.partition(": ")[2], ink) == ("loss NaN, gradient norm 1, 1.00 GiB of memory", "bad")
