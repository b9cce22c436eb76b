"""The `lmplay` command: one Typer app whose commands are named in commands.py, each in a file of its own.

No file of a command is imported before it is asked for, and none imports torch before it runs.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

import lmplay
from lmplay.cli.commands import Commands
from lmplay.cli.errors import run_app

app = typer.Typer(
    name="lmplay",
    cls=Commands,
    help="Try new language-model architectures: copy the baseline, change it, check it, train it, compare, talk to it.",
    epilog="Errors are one line; --debug on any command shows the traceback. Exit status: 0 done, 1 failed, 2 wrong "
    "usage, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        typer.echo(f"lmplay {lmplay.__version__}")
        raise typer.Exit


def main() -> NoReturn:
    sys.exit(run_app(app, "lmplay", sys.argv[1:]))
