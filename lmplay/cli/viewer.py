"""Watching one run in the terminal: what `lmplay run` shows in the foreground and what `lmplay attach` shows.

A viewer only reads. In a terminal it redraws a small panel; piped, it prints plain lines. Leaving it, killing it or
losing the terminal never touches the run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.live import Live

from lmplay.cli.viewer_panel import RunView, plain_lines, render
from lmplay.runs import RunFollower, Status, kill_worker, request
from lmplay.runs.layout import LOG
from lmplay.runs.logout import logout_notice
from lmplay.utils.errors import LMPlayError

OnInterrupt = Literal["ask", "stop", "leave"]
Choice = Literal["leave", "stop", "kill"]
REFRESH_SECONDS = 0.5
# Of a long run, only the newest part of its files is read before the first picture.
RECENT_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Viewed:
    """How watching ended: the run's last known status, and what the person did with ctrl+c."""

    status: Status
    interrupted: bool = False
    """ctrl+c was pressed, whatever was chosen then."""
    left: bool = False
    """The viewer was left while the run goes on."""


def view_run(
    run_path: Path,
    *,
    interactive: bool | None = None,
    on_interrupt: OnInterrupt = "ask",
    console: Console | None = None,
    ask: Callable[[Console], Choice] | None = None,
) -> Viewed:
    """Show the run until it ends or is left; for `lmplay run` right after the worker was started, and for `attach`.

    `interactive` draws a live panel; without it, plain lines are printed (as when `console` is no terminal).
    `on_interrupt`: what ctrl+c does. "ask": leave it running, stop and save, or stop now (not interactive: stop and
    save); "stop": stop and save; "leave": end the viewer only. A second ctrl+c while the run is stopping leaves.
    """
    console = console or Console(file=sys.stdout, highlight=False)
    if interactive is None:
        interactive = console.is_terminal
    view = RunView(run_path, RunFollower(run_path, recent_bytes=RECENT_BYTES))
    interrupted = False
    while True:
        try:
            status = _watch_live(view, console) if interactive else _watch_plain(view, console)
            return Viewed(status=status, interrupted=interrupted)
        except KeyboardInterrupt:
            choice: Choice = "leave"
            if not interrupted or not view.status.active:
                choice = _choose(on_interrupt, interactive, console, ask or ask_what_to_do)
            interrupted = True
        if choice == "leave":
            console.print(f"The run goes on. See it again: lmplay attach {run_path.name}")
            if on_interrupt == "ask" and (notice := logout_notice("lmplay run ...")):
                console.print(notice, soft_wrap=True, markup=False)
            return Viewed(status=view.status, interrupted=True, left=True)
        _end(run_path, view, choice, console)


def ask_what_to_do(console: Console) -> Choice:
    """The question behind ctrl+c. Enter, the end of input or a further ctrl+c leave the run alone."""
    choices: dict[str, Choice] = {"l": "leave", "s": "stop", "n": "kill"}
    while True:
        try:
            answer = console.input("\n(l)eave it running, (s)top and save, or stop (n)ow without saving? [l] ")
        except (EOFError, KeyboardInterrupt):
            return "leave"
        key = answer.strip().lower()[:1] or "l"
        if key in choices:
            return choices[key]


def _choose(on_interrupt: OnInterrupt, interactive: bool, console: Console, ask: Callable[[Console], Choice]) -> Choice:
    if on_interrupt == "leave":
        return "leave"
    return ask(console) if on_interrupt == "ask" and interactive else "stop"


def _end(run_path: Path, view: RunView, choice: Choice, console: Console) -> None:
    try:
        if choice == "kill":
            kill_worker(run_path)
        else:
            # A worker that is still loading finds the request at its first step.
            _wait_until_taken(view)
            request(run_path, "stop")
            console.print("Stopping: the run saves a checkpoint at the end of this step.")
    except LMPlayError as error:
        view.poll()
        if not view.status.finished:
            console.print(str(error))


def _wait_until_taken(view: RunView, *, patience: float = 30.0) -> None:
    """Until the worker has taken the run: what is asked before that is meant for nobody."""
    end = time.monotonic() + patience
    while view.status.state == "queued" and time.monotonic() < end:
        time.sleep(0.05)
        view.poll()


def _watch_plain(view: RunView, console: Console) -> Status:
    while True:
        update = view.poll()
        for line in plain_lines(view, update):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if update.status.finished:
            _say_the_end(view, console)
            return update.status
        time.sleep(REFRESH_SECONDS / 5 if update.status.state in ("queued", "starting") else REFRESH_SECONDS)


def _watch_live(view: RunView, console: Console) -> Status:
    view.poll()
    with Live(render(view), console=console, auto_refresh=False, transient=False) as live:
        while not view.status.finished:
            time.sleep(REFRESH_SECONDS)
            view.poll()
            live.update(render(view), refresh=True)
        live.update(render(view), refresh=True)
    _say_the_end(view, console)
    return view.status


def _say_the_end(view: RunView, console: Console) -> None:
    """The last lines, the same in both forms: how it ended and, where it went wrong, where to look."""
    status = view.status
    console.print(view.last_line(), markup=False, highlight=False, soft_wrap=True)
    if status.state in ("failed", "lost"):
        console.print(f"What the worker printed: {view.path / LOG}", markup=False, highlight=False, soft_wrap=True)
