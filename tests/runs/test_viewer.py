"""The viewer of `lmplay run` and `lmplay attach`: what it shows, and that leaving it leaves the run alone."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lmplay.cli.viewer import Choice, OnInterrupt, view_run
from lmplay.cli.viewer_panel import RunView, render
from lmplay.runs import RunFollower, RunWriter, read_status
from lmplay.utils.figures import format_bytes, format_count, format_seconds, sparkline

from .conftest import wait_for

StartWorker = Callable[..., int]


def console_of(text: io.StringIO, *, terminal: bool = False) -> Console:
    return Console(file=text, width=80, height=24, force_terminal=terminal, color_system=None)


def test_piped_viewer_prints_plain_lines_in_the_order_of_steps(run: Path, start_worker: StartWorker) -> None:
    start_worker(run, "--steps", "40", "--pause", "0.005")
    text = io.StringIO()
    viewed = view_run(run, console=console_of(text))
    lines = text.getvalue().splitlines()
    assert (viewed.status.state, viewed.left, viewed.interrupted) == ("done", False, False)
    assert "\x1b" not in text.getvalue()
    assert [line for line in lines if line.startswith("sample at")][-1] == "sample at step 40: The text of step 40"
    assert any(line.startswith("step 40") and "validation loss" in line and "perplexity" in line for line in lines)
    assert lines.index("saved a checkpoint at step 20") < lines.index("saved a checkpoint at step 40")
    assert lines[-1].startswith("one done: 40 steps, 20.5k tokens")


def test_panel_shows_what_a_person_looks_for(run: Path) -> None:
    with RunWriter(run) as writer:
        writer.status(state="running", total_samples=100)
        row = {"kind": "train", "stage": "mix", "step": 3, "samples": 30, "tokens": 3000, "time": 2.0, "loss": 9.5}
        writer.metrics(
            {**row, "lr": 6e-4, "tokens_per_second": 12345.0}, {**row, "step": 4, "samples": 40, "loss": 8.25}
        )
        writer.metrics({"kind": "validate", "step": 4, "loss": 10.8278, "perplexity": 4914.8})
        writer.event("validated", sample="Once upon\na time")
        writer.status()
        view = RunView(run, RunFollower(run))
        view.poll()
        text = io.StringIO()
        console_of(text).print(render(view))
    for expected in ("one", "fake", "running", "stage mix", "40.0%", "8.2500", "10.8278", "4,915", "Once upon a time"):
        assert expected in text.getvalue(), expected


@pytest.mark.parametrize(
    ("on_interrupt", "interactive", "answer", "state_then"),
    [
        ("ask", True, "leave", "running"),
        ("ask", True, "stop", "stopped"),
        ("ask", True, "kill", "stopped"),
        ("ask", False, "leave", "stopped"),
        ("stop", True, "leave", "stopped"),
        ("leave", True, "kill", "running"),
    ],
)
def test_interrupt_does_what_was_chosen(
    run: Path,
    start_worker: StartWorker,
    on_interrupt: OnInterrupt,
    interactive: bool,
    answer: Choice,
    state_then: str,
) -> None:
    pid = start_worker(run, "--steps", "100000", "--pause", "0.01", "--save-every", "1000000")
    wait_for(lambda: read_status(run).state == "running")
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    text = io.StringIO()
    viewed = view_run(
        run,
        interactive=interactive,
        on_interrupt=on_interrupt,
        console=console_of(text, terminal=interactive),
        ask=lambda _: answer,
    )
    assert viewed.interrupted
    assert viewed.left == (state_then == "running")
    assert read_status(run).state == state_then
    killed = answer == "kill" and on_interrupt == "ask"
    assert (run / "checkpoints" / "latest").exists() == (state_then == "stopped" and not killed)
    if state_then == "running":
        assert os.getsid(pid) == pid
        assert "lmplay attach one" in text.getvalue()


def test_lost_worker_ends_the_viewer_with_the_reason(run: Path, start_worker: StartWorker) -> None:
    pid = start_worker(run, "--steps", "100000", "--pause", "0.01")
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    text = io.StringIO()
    started = time.monotonic()
    assert view_run(run, console=console_of(text)).status.state == "lost"
    assert time.monotonic() - started < 10
    assert "without a word" in text.getvalue()
    assert "worker.log" in text.getvalue()


def test_figures_read_well() -> None:
    assert [format_count(value) for value in (950, 12345, 1.25e6, 3.1e9, None)] == [
        "950",
        "12.3k",
        "1.25M",
        "3.10B",
        "-",
    ]
    assert [format_seconds(value) for value in (8, 200, 18420, 187200)] == [
        "8 s",
        "3 min 20 s",
        "5 h 07 min",
        "2 d 4 h",
    ]
    assert [format_bytes(value) for value in (512, 3 << 20, 5 << 30)] == ["512 B", "3 MiB", "5.00 GiB"]
    assert sparkline([3, 2, float("nan"), 1], 10) == "█▅ ▁"
