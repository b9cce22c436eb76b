"""From a watched run to the answer of the command: the exit status, the last line of JSON, and how to go on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from lmplay.cli.viewer import Viewed, view_run
from lmplay.runs import Status
from lmplay.utils.files import to_json

INTERRUPTED = 130


def watch(path: Path, *, json: bool, interactive: bool) -> int:
    """Show the run in `path` until it ends or is left; returns the exit status of the command."""
    console = Console(quiet=True) if json else Console(file=sys.stdout, highlight=False)
    viewed = view_run(path, interactive=interactive, console=console)
    status = viewed.status
    if json:
        typer.echo(to_json(result(path, status)))
    if status.state == "stopped" and not json:
        console.print(f"Go on from there with the same command, or with --name {path.name}.", markup=False)
    return exit_status(viewed)


def exit_status(viewed: Viewed) -> int:
    """Of a command that has watched a run: 0 for one that came to its end, was stopped on request or goes on, 1 for one
    that failed or was lost, 130 where ctrl+c ended it here, 128+n where a signal n did.
    """
    status = viewed.status
    if viewed.left:
        return 0
    if status.state in {"failed", "lost"}:
        return 1
    if viewed.interrupted:
        return INTERRUPTED
    told = status.fields.get("exit_status")
    return told if status.state == "stopped" and isinstance(told, int) else 0


def result(path: Path, status: Status) -> dict[str, Any]:
    """The last line of `lmplay run --json`."""
    return {
        "run": path.name,
        "path": str(path),
        "state": status.state,
        "steps": status.step,
        "samples": status.samples,
        "tokens": status.tokens,
        "validation_loss": status.validation_loss,
    }
