"""The `lmplay` command: one Typer app; each group of commands registers itself from a file of its own.

No command group imports torch before one of its commands runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

import lmplay
from lmplay.cli import attach, chat, check, compare, ctl, data, describe, generate, new, plans, plot, queue, run, runs
from lmplay.cli import list as list_
from lmplay.cli.errors import run_app

GROUPS = (list_, describe, check, new, run, runs, attach, ctl, queue, compare, plot, generate, chat, plans, data)

app = typer.Typer(
    name="lmplay",
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


for group in GROUPS:
    group.register(app)


def main() -> NoReturn:
    sys.exit(run_app(app, "lmplay", sys.argv[1:]))
