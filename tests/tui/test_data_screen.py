"""The data screen: plans with their stages, datasets, packed rows, and preparing that outlives the screen."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from lmplay.utils.errors import LMPlayError
from lmplay_tui.app import Workbench
from lmplay_tui.lines import plain
from lmplay_tui.services.commands import CommandError
from lmplay_tui.services.data_facts import packed_row
from lmplay_tui.services.plan_shelf import copy_plan, read_plans
from lmplay_tui.services.preparation import Preparations
from lmplay_tui.views.data import preparation_lines
from lmplay_tui.views.packed_row import row_lines, row_map
from tests.tui.support import FakeCommands, drive, make_app, text_of, until, until_text

ROW = {
    "number": 2,
    "packing": "document",
    "spans": [
        {"text": "User: who?\n\nAssistant:", "learned": False, "document": 0, "padding": False, "tokens": 30},
        {"text": " me.<|endoftext|>", "learned": True, "document": 0, "padding": False, "tokens": 30},
        {"text": "User: why?\x1b[2J", "learned": False, "document": 1, "padding": False, "tokens": 20},
        {"text": "", "learned": False, "document": 2, "padding": True, "tokens": 40},
    ],
}
FACTS = {
    "name": "pydocs",
    "documents": 79,
    "tokens": 139_016,
    "learned": 139_016,
    "empty": 0,
    "held_out_documents": 10,
    "held_out_tokens": 22_216,
    "lengths": {"mean": 1692.75, "median": 446, "longest": 15_163, "histogram": [[32, 64, 1], [64, 128, 8]]},
    "packings": {
        mode: {"rows": 913, "fill": 0.99945, "targets": 116_800, "cut_documents": 0, "dropped_documents": 0}
        for mode in ("stream", "document", "pad")
    },
}


def plans_answer(*arguments: str) -> Any:
    """As `lmplay plans --json` and `lmplay plans show quickstart --json` answer once everything is prepared."""
    if arguments[:1] != ("show",):
        return [{"name": "quickstart", "description": "A first training."}]
    stage = {
        "name": "learn",
        "rows": 1954,
        "tokens": 250_000,
        "steps": 245,
        "seconds": None,
        "disk": 10_739_628,
        "fill": 0.9997,
        "exact": True,
        "sequence_length": 128,
        "batch_size": 8,
        "packing": "stream",
        "datasets": {"pydocs": 0.5, "stdlib": 0.5},
        "train": {},
    }
    datasets = [{"name": name, "tokens": 139_016, "disk": 279_688, "prepared": True} for name in ("pydocs", "stdlib")]
    return {"plan": "quickstart", "datasets": datasets, "stages": [stage]}


def data_answer(*arguments: str) -> Any:
    if arguments[0] != "show":
        return [{"name": "pydocs-59", "documents": 79, "tokens": 139_016, "disk": 279_688, "last_used": time.time()}]
    if "--row" not in arguments:
        return FACTS
    row = {**ROW, "number": int(arguments[arguments.index("--row") + 1])}
    return {**FACTS, "row": {**row, "packing": arguments[arguments.index("--packing") + 1]}}


def plan_file(folder: Path, name: str, **content: Any) -> Path:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(content))
    return file


def shell(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_plans_of_the_folder_come_before_the_ready_ones_and_broken_ones_say_why(tmp_path: Path) -> None:
    short = {"learn": {"dataset": "pydocs", "epochs": 1}}
    plan_file(tmp_path, "mine", **short)
    plan_file(tmp_path, "odd", version=1, datasets={}, stages=[])
    (tmp_path / "torn.json").write_text('{"datasets": {}, "stages": [,]}')
    plan_file(tmp_path, "package", dependencies={"left-pad": "1"})
    (tmp_path / "other").mkdir()
    other = plan_file(tmp_path / "other", "elsewhere", **short)
    found = read_plans(tmp_path, [str(other)])
    assert [plan.name for plan in found[:4]] == ["mine", "odd", "torn", "elsewhere"]
    assert {"quickstart", "default"} <= {plan.key for plan in found if plan.ready}
    assert "datasets" in found[1].problem
    assert "not JSON" in found[2].problem
    copied = copy_plan(next(plan for plan in found if plan.key == "quickstart"), tmp_path, "next.json")
    assert copied == tmp_path / "next.json"
    with pytest.raises(LMPlayError, match="is there already"):
        copy_plan(found[0], tmp_path, "next")


def test_a_packed_row_shows_borders_loss_mask_and_padding_to_scale_and_without_colour() -> None:
    row = packed_row({**FACTS, "row": ROW}, length=120)
    assert plain(row_map(row, 12)) == "▂▂▂███▂▂····"
    assert plain(row_map(row, 12, ascii_only=True)) == "---###--...."
    lines = row_lines(row, 60)
    text = [plain(line) for line in lines]
    assert "2 documents: 30 tokens learned, 50 read only, 40 padding" in text
    borders = [line for line in text if line.startswith("── ")]
    assert [border.strip("─ ") for border in borders] == [
        "document 1, 60 tokens here",
        "document 2, 20 tokens here",
        "40 tokens of padding",
    ]
    answer = next(line for line in lines if "me." in plain(line))
    assert answer[0] == ("Assistant:", "muted italic")
    assert answer[1] == (" me.¶", "s0")
    assert "\x1b" not in "".join(text)  # nothing in a text steers the terminal
    drawn = "".join(plain(line) for line in row_lines(row, 60, ascii_only=True))
    assert drawn.replace("�", "").isascii()


def test_a_preparation_goes_on_without_the_workbench_and_is_found_again(tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"""
import json, pathlib, time
for done in (10, 40):
    print(json.dumps({{"what": "reading", "done": done, "total": 100, "seconds": done}}), flush=True)
while not pathlib.Path({str(go)!r}).exists():
    time.sleep(0.02)
print(json.dumps({{"datasets": []}}))
"""
    first = Preparations(tmp_path / "jobs", command=lambda _: shell(script))
    first.start("mine")
    wait_for(lambda: bool(first.look()[0].steps) and first.look()[0].steps[0].done == 40)
    step = first.now[0].steps[0]
    # 30 of the 90 that this process has to do took 30 seconds.
    assert step.seconds_left == pytest.approx(60)
    assert "40 of 100" in plain(preparation_lines(first.now, 80)[0])
    with pytest.raises(LMPlayError, match="being prepared already"):
        first.start("mine")

    second = Preparations(tmp_path / "jobs")
    assert [one.state for one in second.look()] == ["running"]
    assert second.look()[0].steps[0].done == 40
    go.touch()
    wait_for(lambda: second.look()[0].state == "done")
    assert Preparations(tmp_path / "jobs").look() == ()  # what is done is no news the next time


def test_a_preparation_that_fails_is_killed_or_stopped_says_so(tmp_path: Path) -> None:
    fails = "import sys; sys.exit('Traceback...\\nlmplay: there is no file nothere.txt')"
    scripts = {"bad": fails, "killed": "import time; time.sleep(60)", "stopped": "import time; time.sleep(60)"}
    jobs = Preparations(tmp_path / "jobs", command=lambda plan: shell(scripts[plan]))
    for name in scripts:
        jobs.start(name)
    os.kill(jobs_pid(jobs, "killed"), signal.SIGKILL)
    jobs.stop("stopped")
    wait_for(lambda: all(one.state != "running" for one in jobs.look()))
    found = {one.plan: (one.state, one.problem) for one in jobs.now}
    assert found["bad"] == ("failed", "there is no file nothere.txt")
    assert found["killed"][0] == "failed"
    assert "SIGKILL" in found["killed"][1]
    assert found["stopped"] == ("stopped", "")
    text = "\n".join(plain(line) for line in preparation_lines(jobs.now, 80))
    assert "p goes on" in text
    # The next workbench tells what went wrong behind one's back, not what one stopped.
    assert sorted(one.plan for one in Preparations(tmp_path / "jobs").look()) == ["bad", "killed"]
    jobs.dismiss()
    assert jobs.now == ()


def jobs_pid(jobs: Preparations, plan: str) -> int:
    assert jobs._followed is not None
    return int(jobs._followed[plan].job["pid"])


def wait_for(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_from_a_plan_through_its_datasets_to_a_row_and_the_launch_form(tmp_path: Path) -> None:
    commands = FakeCommands({"plans": plans_answer, "data": data_answer, "settings": []})

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "245 steps")
        assert "pydocs  ━━" in text_of(app)
        await pilot.press("v")
        await until_text(pilot, "10 of them held out")
        assert "99.94%" in text_of(app)
        await pilot.press("v")
        await until_text(pilot, "row 0 of 913")
        await pilot.press("right_square_bracket")
        await until_text(pilot, "row 1 of 913")
        await pilot.press("m", "plus")
        await until_text(pilot, "of 913  document, 256 tokens")
        await pilot.press("number_sign", "end", *["backspace"] * 3, *"913", "enter")
        await until_text(pilot, "The last row is 912.")
        await pilot.press("backspace", "2", "enter")
        await until_text(pilot, "row 912 of 913")
        await pilot.press("d")
        await until(pilot, lambda: commands.asked[-1][:3] == ("data", "show", "stdlib"), what="the other dataset")
        await pilot.press("v")
        await until_text(pilot, "pydocs-59")
        await pilot.press("l")
        await until_text(pilot, "Launch")
        assert "quickstart" in text_of(app)

    app = make_app(tmp_path, mode="data", commands=commands)
    drive(app, do, size=(80, 24))


def test_commands_that_fail_or_are_killed_leave_the_screen_alive(tmp_path: Path) -> None:
    plan_file(tmp_path, "mine", learn={"dataset": "pydocs", "epochs": 1})
    answers = {"plans": CommandError("ended by SIGKILL"), "data": CommandError("no space left")}

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "ended by SIGKILL")
        await pilot.press("v", "v", "v")
        await until_text(pilot, "no space left")
        await pilot.press("v")
        (tmp_path / "mine.json").write_text("{")
        commands.answers["plans"] = plans_answer
        await pilot.press("R")
        await until_text(pilot, "245 steps")
        assert app.is_running

    commands = FakeCommands(answers)
    drive(make_app(tmp_path, mode="data", commands=commands), do)
