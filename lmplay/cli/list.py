"""`lmplay list`: every experiment there is, and those that are broken, with the reason."""

from __future__ import annotations

import typer

from lmplay.utils.files import to_json


def register(app: typer.Typer) -> None:
    app.command("list")(list_command)


def list_command(
    json: bool = typer.Option(False, "--json", help="Print a list of objects: name, description, module, broken, ..."),
) -> None:
    """List the experiments: those in lmplay/exp, in installed packages, and in the folders of $LMPLAY_EXPERIMENTS.

    An experiment that can't be imported is listed with its error; the others are not harmed by it.
    """
    from lmplay.base.listing import list_experiments

    if json:
        typer.echo(to_json(list_experiments(), indent=2))
    else:
        print_list()


def print_list() -> None:
    """Names and descriptions, one a line, on standard output; broken experiments on standard error."""
    from lmplay.base.listing import list_experiments

    rows = list_experiments()
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        if row["broken"] is None:
            typer.echo(f"{row['name']:<{width}}  {row['description']}".rstrip())
    broken = [row for row in rows if row["broken"] is not None]
    if broken:
        typer.echo("\nbroken:", err=True)
        for row in broken:
            typer.echo(f"{row['name']:<{width}}  {row['broken']}", err=True)
