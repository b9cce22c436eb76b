"""`lmplay attach`: watch a run from any terminal, and from as many as one likes. It only reads."""

from __future__ import annotations

import typer
from rich.console import Console

from lmplay.cli.viewer import view_run
from lmplay.cli.watch import exit_status
from lmplay.runs import resolve_run


def register(app: typer.Typer) -> None:
    app.command("attach")(attach)


def attach(
    run: str = typer.Argument(help="Run by name, beginning of the name, path, or `last`."),
    plain: bool = typer.Option(False, "--plain", help="Lines instead of a live panel, as when piped."),
) -> None:
    """Watch a run live until it ends; ctrl+c leaves, and never touches the run. Exits as `lmplay run` would."""
    path = resolve_run(run)
    console = Console(highlight=False)
    viewed = view_run(path, interactive=console.is_terminal and not plain, on_interrupt="leave", console=console)
    raise typer.Exit(exit_status(viewed))
