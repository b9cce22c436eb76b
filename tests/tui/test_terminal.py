"""The real program in a pseudo-terminal: what its first frame holds, what it sends, how it goes, and how it is lost."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.terminal import BRAILLE, Terminal
from lmplay.runs import list_runs, read_status
from lmplay.utils.files import to_json
from lmplay_tui.services.experiments import ExperimentIndex
from tests.tui.support import FakeCommands, plant_live_run, plant_run

BUDGET = 14_000
"""Bytes a second that a live run may send at the default rate; a tmux client gets fewer than tmux does."""


@pytest.fixture(autouse=True)
def _caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMPLAY_CACHE", str(tmp_path / "cache"))


def remember(tmp_path: Path, **state: object) -> None:
    """What an earlier start left behind."""
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "workbench.json").write_text(json.dumps(state))


def rows_from(first: int) -> Iterator[str]:
    """What a worker appends, step by step."""
    for step in range(first, first + 10_000):
        place = {"step": step, "samples": step * 8, "tokens": step * 1024, "time": step * 0.5}
        figures = {"loss": 3 + 7.5 * math.exp(-step / 40), "lr": 1e-3, "grad_norm": 1 + math.sin(step) / 4}
        yield to_json({"kind": "train", "stage": "learn", **place, **figures, "tokens_per_second": 2e3}) + "\n"


def test_second_start_lists_the_experiments_in_its_first_frame_without_torch() -> None:
    asyncio.run(ExperimentIndex(FakeCommands()).renew())  # what the first start keeps
    with Terminal() as terminal:
        terminal.until_text("Quit")  # the last word of the lowest line
        assert "half_done" in terminal.text
        assert "gpt2ish_med" in terminal.text
        assert not [place.path for place in terminal.process.memory_maps() if "libtorch" in place.path]


def test_bytes_idle_nothing_and_a_live_run_little(tmp_path: Path) -> None:
    path = plant_live_run(tmp_path / "runs", "live")
    remember(tmp_path, mode="run")
    rows = rows_from(121)
    with Terminal() as terminal:
        terminal.until(lambda: bool(BRAILLE.search(terminal.text)), what="curves")
        terminal.until_quiet()
        begun, sent = time.monotonic(), len(terminal.output)
        for _ in range(20):
            with (path / "metrics.jsonl").open("a") as file:
                file.write(next(rows))
            terminal.take(0.25)
        rate = (len(terminal.output) - sent) / (time.monotonic() - begun)
        assert 0 < rate < BUDGET
        status = json.loads((path / "status.json").read_text())
        (path / "status.json").write_text(json.dumps({**status, "state": "done"}))
        for screen in "43":
            terminal.press(screen)
            terminal.until_quiet(silence=1.5)
            assert terminal.take(2.0) == b"", screen


def test_leaving_says_which_runs_go_on_and_gives_the_terminal_back(tmp_path: Path) -> None:
    plant_live_run(tmp_path / "runs", "overnight")
    plant_run(tmp_path / "runs", "over")
    remember(tmp_path, mode="runs")
    with Terminal() as terminal:
        terminal.until_text("overnight")
        terminal.press("q")
        assert terminal.wait() == 0
        left = bytes(terminal.output).rpartition(b"\x1b[?1049l")[2]
        assert "1 run goes on: overnight." in terminal.text
        assert b"overnight" in left  # said after the screen is back, where it stays
        assert b"\x1b[?1000l" in terminal.output
        assert b"\x1b[?25h" in terminal.output


@pytest.mark.slow
def test_lost_terminal_and_killed_workbench_leave_training_alone(tmp_path: Path, token_cache: Path) -> None:
    values = {"experiment": "test_runner", "plan": "quickstart", "device": "cpu", "name": "mine", "steps": "8"}
    remember(tmp_path, mode="runs", launch=values)
    with Terminal(environment={"LMPLAY_CACHE": str(token_cache)}) as terminal:
        terminal.until_text("Quit")
        terminal.press("2")
        terminal.until_text("lmplay run test_runner", seconds=120)
        terminal.press("\x1b[15~")  # f5
        terminal.until(lambda: bool(list_runs(tmp_path / "runs")), what="a run", seconds=120)
        run = tmp_path / "runs" / "mine"
        terminal.until(lambda: read_status(run).step >= 2, what="training", seconds=240)
        terminal.hang_up()
        os.kill(terminal.pid, signal.SIGKILL)
    end = time.monotonic() + 240
    while read_status(run).state != "done":
        assert read_status(run).active, read_status(run)
        assert time.monotonic() < end
        time.sleep(0.2)
    assert read_status(run).step == 8
    with Terminal() as terminal:  # lands on the run that was launched
        terminal.until_text("mine")
        terminal.until(lambda: bool(BRAILLE.search(terminal.text)), what="curves")


def test_workbench_that_ignores_hang_ups_goes_with_its_terminal() -> None:
    ignoring = ("sh", "-c", f"trap '' HUP; exec {sys.executable} -m lmplay_tui")
    with Terminal(command=ignoring) as terminal:
        terminal.until_text("Quit")
        terminal.hang_up()
        assert terminal.wait() == -signal.SIGHUP


def test_no_color_sends_none_and_ascii_nothing_else_and_no_mouse_leaves_it_alone(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "first")
    remember(tmp_path, mode="run")
    with Terminal("--ascii", "--no-mouse", environment={"NO_COLOR": "1"}) as terminal:
        terminal.until_text("Quit")
        terminal.until_quiet()
        terminal.press("3")
        terminal.until_quiet()
        terminal.press("?")
        terminal.until_text("esc closes")
        styles = {code for found in re.findall(rb"\x1b\[([\d;]*)m", terminal.output) for code in found.split(b";")}
        assert styles <= {b"", b"0", b"1", b"2", b"3", b"4", b"7", b"39", b"49"}  # attributes, and the usual colours
        assert terminal.text.isascii()
        assert b"\x1b[?1000h" not in terminal.output
    with Terminal() as terminal:
        terminal.until_text("Quit")
        assert b"\x1b[?1000h" in terminal.output


def test_terminal_left_in_a_bad_state_is_mended() -> None:
    with Terminal("--reset-terminal") as terminal:
        assert terminal.wait() == 0
        for off in ("?1049l", "?1000l", "?1003l", "?1006l", "?2004l", "?25h"):
            assert f"\x1b[{off}".encode() in terminal.output, off
