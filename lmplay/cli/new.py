"""`lmplay new`: a copy of an experiment under a name of its own, ready to be changed."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from lmplay.utils.errors import LMPlayError


def register(app: typer.Typer) -> None:
    app.command("new")(new_command)


def new_command(
    name: str = typer.Argument(help="Name of the new experiment: small letters, digits and _."),
    source: str = typer.Option("gpt2ish", "--from", metavar="EXPERIMENT", help="The experiment to copy."),
    into: Path | None = typer.Option(
        None,
        metavar="DIR",
        help="Folder to put it in. [default: lmplay/exp in a clone; else the first of $LMPLAY_EXPERIMENTS, or "
        "./experiments]",
    ),
) -> None:
    """Copy an experiment to NAME, rename what must be renamed, and say what to do next.

    The copy repeats everything, so that a change to one experiment never touches another.
    """
    from lmplay.base.discovery import FOLDERS_VARIABLE, homes
    from lmplay.base.runner_list import MODEL_RUNNERS, broken_experiments, discover
    from lmplay.cli.copy_experiment import copy_experiment

    target = into.expanduser().resolve() if into is not None else _default_home()
    copied = copy_experiment(source, name, target)

    listed = os.environ.get(FOLDERS_VARIABLE, "")
    is_home = any(Path(home).resolve() == target for home in homes())
    if not is_home:
        os.environ[FOLDERS_VARIABLE] = os.pathsep.join(filter(None, [listed, str(target)]))
    discover()
    for broken in broken_experiments():
        if Path(broken.file) == copied.folder / "versions.py":
            raise LMPlayError(f"{copied.folder} was made and cannot be loaded: {broken.error}")
    missing = [new for new in copied.names if new not in MODEL_RUNNERS]
    if missing:
        raise LMPlayError(
            f"{copied.folder} was made and does not register {', '.join(missing)}; look at its versions.py"
        )

    typer.echo(f"{copied.folder}: {copied.class_name} in model.py, {', '.join(copied.names)} in versions.py\n")
    if not is_home:
        value = os.pathsep.join(filter(None, [f"${FOLDERS_VARIABLE}" if listed else "", str(target)]))
        typer.echo(f"The folder is none that lmplay looks into yet:\n  export {FOLDERS_VARIABLE}={value}\n")
    typer.echo("Change model.py, then:")
    for command in (
        f"lmplay describe {copied.names[0]}",
        f"lmplay check {copied.names[0]} --tiny",
        f"lmplay run {copied.names[0]} --plan quickstart",
    ):
        typer.echo(f"  {command}")


def _default_home() -> Path:
    from lmplay.base.discovery import FOLDERS_VARIABLE, homes

    own = Path(homes()[0])
    if os.access(own, os.W_OK) and not {"site-packages", "dist-packages"} & set(own.parts):
        return own.resolve()
    for folder in filter(None, os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)):
        return Path(folder).expanduser().resolve()
    return Path("experiments").resolve()
