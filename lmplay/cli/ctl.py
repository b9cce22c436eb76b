"""`lmplay ctl`: steer a run from any terminal, and see that it was heard.

A request is a small file; the worker reads it at its next step and answers in the run's events, which are shown here.
"""

from __future__ import annotations

import contextlib
import json as json_module
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from lmplay.runs import ACTIONS, JsonlTail, is_live, kill_worker, read_status, request, resolve_run
from lmplay.runs.layout import EVENTS
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json
from lmplay.utils.names import did_you_mean


def register(app: typer.Typer) -> None:
    app.command("ctl")(ctl)


def ctl(
    run: str = typer.Argument(help="Run by name, beginning of the name, path, or `last`."),
    action: str = typer.Argument(
        help="pause, resume, stop (and save), kill (at once, without saving), checkpoint, validate, sample, or set."
    ),
    assignments: list[str] | None = typer.Argument(
        None, metavar="[KEY=VALUE]...", help="For set: train.lr=3e-4 train.validation_interval=50 limits.steps=2000 ..."
    ),
    wait: bool = typer.Option(True, "--wait/--no-wait", help="Wait until it is done, or only leave the request."),
    timeout: float = typer.Option(600.0, min=0.0, help="Seconds to wait."),
    yes: bool = typer.Option(False, "--yes", "-y", help="For kill: do not ask."),
    json: bool = typer.Option(False, "--json", help="Print nothing but a last line of JSON: run, action, outcome."),
) -> None:
    """Ask something of a running run: shown as requested, accepted at a step, done."""
    path = resolve_run(run)
    if action not in (*ACTIONS, "kill"):
        known = (*ACTIONS, "kill")
        raise WrongUsageError(
            f"a run can't be asked to {action!r}{did_you_mean(action, known)}; it can {', '.join(known)}"
        )
    if action == "set" and not assignments:
        raise WrongUsageError("set needs what to set: lmplay ctl RUN set train.lr=3e-4")
    if action != "set" and assignments:
        raise WrongUsageError(f"{action} takes no settings ({' '.join(assignments)})")
    _check_live(path, action)
    say: Callable[[str], None] = (lambda _: None) if json else typer.echo
    if action == "kill":
        _kill(path, yes=yes)
        outcome: dict[str, Any] = {"event": "done"}
        say(f"{path.name}: killed; what was not in a checkpoint is lost")
    else:
        follower = _Events(path)
        asked = request(path, action, **dict(parse_assignment(text) for text in assignments or ()))
        say(f"{path.name}: {action} requested")
        outcome = follower.wait_for(asked, say, timeout=timeout) if wait else {"event": "requested"}
    if json:
        answer = {key: value for key, value in outcome.items() if key not in ("event", "clock", "id", "action")}
        typer.echo(to_json({"run": path.name, "action": action, "outcome": outcome["event"], **answer}))
    if outcome["event"] not in ("done", "requested"):
        raise typer.Exit(1)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`train.lr=3e-4` as (key, value); the value as JSON where it is JSON, else as text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise WrongUsageError(f"{text!r} is no setting: give it as key=value, for example train.lr=3e-4")
    with contextlib.suppress(ValueError):
        return key.strip(), json_module.loads(value)
    return key.strip(), value


class _Events:
    """The run's events from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        events = path / EVENTS
        self._tail = JsonlTail(events)
        for _ in self._tail.read_lines():
            pass  # all that was before is no answer

    def wait_for(self, asked: str, say: Callable[[str], None], *, timeout: float) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while True:
            # Asked before reading: a worker that has ended by now has written its last event.
            live = is_live(self._path)
            for row in self._tail.read():
                if row.get("id") != asked:
                    continue
                kind = row.get("event")
                if kind == "accepted":
                    say(f"{self._path.name}: accepted at step {row.get('step', 0):,}")
                elif kind in ("done", "refused", "expired"):
                    say(f"{self._path.name}: {_outcome(row)}")
                    return row
            if not live:
                state = read_status(self._path).state
                raise LMPlayError(f"the run {self._path.name} is {state}: nobody answers any more")
            if time.monotonic() >= end:
                raise LMPlayError(f"no answer from {self._path.name} for {timeout:g} s; the request still stands")
            time.sleep(0.05)


def _outcome(row: dict[str, Any]) -> str:
    if row["event"] == "refused":
        return f"refused: {row.get('reason', '')}"
    if row["event"] == "expired":
        return "the worker it was meant for has gone"
    details = []
    for key, value in row.items():
        if key == "changed" and isinstance(value, dict):
            details.append(", ".join(f"{name} is now {new}" for name, new in value.items()))
        elif key not in ("event", "clock", "id", "action", "step"):
            details.append(f"{key} {value}")
    return f"done ({'; '.join(details)})" if details else "done"


def _check_live(path: Path, action: str) -> None:
    status = read_status(path)
    if status.state == "queued":
        raise LMPlayError(f"the run {path.name} has not begun: it can be steered as soon as its worker has taken it")
    if not status.active:
        hint = "" if action != "resume" else "; `lmplay run` with the same command (or --name) goes on with it"
        raise LMPlayError(f"the run {path.name} is {status.state}: there is nobody to {action}{hint}")


def _kill(path: Path, *, yes: bool) -> None:
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUsageError("kill needs --yes where nobody can be asked; stop saves before it ends the run")
        typer.confirm(f"Kill {path.name} now, without saving?", abort=True)
    kill_worker(path)
