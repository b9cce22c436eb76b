"""`lmplay runs`: the list of runs with its filters, and what is done with whole runs: show, diff, tag, rename, delete.

`lmplay runs` alone, or with a filter, is the list; the first word decides, so `lmplay runs show R` is a command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from lmplay.cli import runs_show
from lmplay.runs import resolve_run, runs_root, summarize_all
from lmplay.runs.labels import archive_run, change_labels, delete_run, read_labels, rename_run, restore_run
from lmplay.runs.layout import ARCHIVE
from lmplay.runs.process import this_host
from lmplay.runs.query import ALIASES, FIELDS, check_key, select, sort_runs, value_of
from lmplay.runs.status import read_status
from lmplay.runs.summary import RunSummary
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.figures import format_bytes, format_count, format_loss, format_seconds
from lmplay.utils.files import to_json
from lmplay.utils.names import did_you_mean

DEFAULT_COLUMNS = "run,experiment,state,progress,step,tokens,loss,validation_loss,tokens_per_second,left,age,tag"
# A worker writes every two seconds: figures older than this are stale, and their age is told however narrow it is.
STALE_SECONDS = 10.0
# Left out first where a terminal is too narrow for all of them.
_LEAST_WANTED = ("experiment", "step", "age", "tag", "tokens_per_second", "tokens", "left", "loss")

_FORMATS = {
    "loss": format_loss,
    "validation_loss": format_loss,
    "progress": lambda value: f"{value:.0%}",
    "left": format_seconds,
    "age": format_seconds,
    "created": format_seconds,
    "time": format_seconds,
    "memory": format_bytes,
}
_OPTIONS = ("sort", "columns", "limit", "archived", "json", "help")
_HEADS = {"validation_loss": "validation", "tokens_per_second": "tokens/s", "tag": "tags", "run": "run"}
_ILL = ("broken", "lost")
"""States that are explained below the table."""
_STYLES = {"running": "green", "failed": "red", "lost": "red", "broken": "red", "paused": "yellow", "queued": "cyan"}


class ListByDefault(TyperGroup):
    """A group whose `list` command is meant when the first word is none of its commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="runs",
    cls=ListByDefault,
    help="List runs (`lmplay runs 'exp:gpt2ish loss<4'`), and show, compare settings of, label, move and delete them.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(parent: typer.Typer) -> None:
    parent.add_typer(app)
    runs_show.register(app)


# A term such as -tag:old is no option; what looks like a mistyped one is found below.
_TERMS = {"ignore_unknown_options": True, "help_option_names": ["--help"]}


@app.command("list", context_settings=_TERMS)
def list_(
    query: list[str] | None = typer.Argument(
        None,
        metavar="[FILTER]...",
        help="Terms that must all hold: exp:gpt2ish 'loss<4' -tag:old 'lr>=1e-3' state:running,paused (quote < and >).",
    ),
    sort: str | None = typer.Option(
        None, help="Field or setting to sort by; -FIELD for the largest first. [newest first]"
    ),
    columns: str | None = typer.Option(
        None, help=f"Fields and settings to show, with commas between. [{DEFAULT_COLUMNS}, as far as there is room]"
    ),
    limit: int | None = typer.Option(None, min=1, help="Show the first so many."),
    archived: bool = typer.Option(False, "--archived", help="The archived runs instead."),
    json: bool = typer.Option(False, "--json", help="One JSON list on standard output."),
) -> None:
    """List the runs under $LMPLAY_RUNS (or ./runs), newest first."""
    _refuse_options(query or (), _OPTIONS)
    runs = summarize_all(archived=archived)
    chosen = select(runs, " ".join(query or ()))
    if sort is not None:
        check_key(sort.removeprefix("-"), runs)
        chosen = sort_runs(chosen, sort)
    if limit is not None:
        chosen = chosen[:limit]
    if json:
        typer.echo(to_json([run.as_json() for run in chosen]))
        return
    names = [name.strip() for name in (columns or _usual_columns(chosen)).split(",") if name.strip()]
    for name in names:
        check_key(name, runs)
    # A pipe has no width: nothing is cut there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    if not chosen:
        there = (
            f"{len(runs)} others do not fit the filter"
            if runs
            else "start one: lmplay run EXPERIMENT --plan quickstart"
        )
        console.print(f"No runs in {runs_root()} to show; {there}.", soft_wrap=True, markup=False)
        return
    cells = {name: [_cell(run, name) for run in chosen] for name in names}
    if columns is None:
        _leave_out(cells, console.width, keep={"age"} if any(map(_is_stale, chosen)) else set())
    _print_table(console, chosen, cells)


@app.command("rename")
def rename(
    run: str = typer.Argument(help="Run by name, beginning of the name, path, or `last`."),
    name: str = typer.Argument(help="The new name."),
) -> None:
    """Give a run another name. Refused while it is being written."""
    old = resolve_run(run)
    typer.echo(f"{old.name} is now {rename_run(old, name).name}")


@app.command("tag", context_settings=_TERMS)
def tag(
    run: str = typer.Argument(help="Run by name, beginning of the name, path, or `last`."),
    tags: list[str] | None = typer.Argument(
        None, metavar="[TAG|-TAG]...", help="Tags to add; -TAG removes one. Without any, those that it has are shown."
    ),
    json: bool = typer.Option(False, "--json", help="One JSON object on standard output: run, path, tags."),
) -> None:
    """Add tags to a run, or remove them: lmplay runs tag last good -old."""
    _refuse_options(tags or (), ("json", "help"), "; a tag is removed with one minus: -old")
    path = resolve_run(run)
    added = [one for one in tags or () if not one.startswith("-")]
    removed = [one[1:] for one in tags or () if one.startswith("-")]
    labels = change_labels(path, add=added, remove=removed) if tags else read_labels(path)
    if json:
        typer.echo(to_json({"run": path.name, "path": str(path), "tags": list(labels.tags)}))
    else:
        typer.echo(f"{path.name}: {', '.join(labels.tags) or 'no tags'}")


@app.command("note")
def note(
    run: str = typer.Argument(help="Run by name, beginning of the name, path, or `last`."),
    text: list[str] | None = typer.Argument(None, help="What to remember of it; without it, the note is shown."),
    clear: bool = typer.Option(False, "--clear", help="Remove the note."),
) -> None:
    """Write a note onto a run, or show it."""
    path = resolve_run(run)
    labels = change_labels(path, note=" ".join(text or ())) if text or clear else read_labels(path)
    typer.echo(labels.note or f"{path.name} has no note")


@app.command("archive")
def archive(
    runs: list[str] = typer.Argument(help="Runs to take out of the list."),
    undo: bool = typer.Option(False, "--undo", help="Bring them back instead."),
) -> None:
    """Move runs into the archive, `.archive` beside them: kept whole, but no longer listed."""
    root = runs_root() / ARCHIVE if undo else None
    for path in [resolve_run(run, root=root) for run in runs]:
        moved = restore_run(path) if undo else archive_run(path)
        typer.echo(f"{path.name} {'is back' if undo else 'is archived'} ({moved})")


@app.command("track")
def track(
    run: str = typer.Argument(help="Run by name, beginning of the name, path, or `last`."),
    tracker: str = typer.Argument(help="tensorboard, wandb or trackio."),
) -> None:
    """Tell a tracker what it doesn't know of a run yet, until the run ends; `lmplay run --track` does so by itself."""
    from lmplay.interop.trackers import check_trackers
    from lmplay.interop.trackers.bridge import main

    path = resolve_run(run)
    raise typer.Exit(main([str(path), *check_trackers([tracker])]))


@app.command("delete")
def delete(
    runs: list[str] = typer.Argument(help="Runs to delete with all their checkpoints."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    archived: bool = typer.Option(False, "--archived", help="The names are those of archived runs."),
) -> None:
    """Delete runs for good. Asks first; refuses for a run that a worker holds."""
    paths = [resolve_run(run, root=runs_root() / ARCHIVE if archived else None) for run in runs]
    for path in paths:
        _refuse_live(path)
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUsageError(
                f"deleting {', '.join(path.name for path in paths)} needs --yes where nobody can be asked"
            )
        size = format_bytes(sum(file.lstat().st_size for path in paths for file in path.rglob("*") if file.is_file()))
        typer.confirm(f"Delete {', '.join(path.name for path in paths)} ({size}) for good?", abort=True)
    for path in paths:
        delete_run(path)
        typer.echo(f"{path.name} is deleted")


def _refuse_options(words: Sequence[str], options: Sequence[str], otherwise: str = "") -> None:
    """Among terms that may begin with a minus: what was meant as one of `options`. `otherwise` ends the complaint."""
    for word in words:
        if word.startswith("--"):
            hint = did_you_mean(word[2:], options).replace("mean ", "mean --")
            raise WrongUsageError(f"no such option: {word}{hint or otherwise}")


def _refuse_live(path: Any) -> None:
    try:
        status = read_status(path)
    except LMPlayError:
        return  # broken runs can be deleted; a writer's lock is still asked for
    if status.active:
        raise LMPlayError(f"the run {path.name} is {status.state}: stop it first (lmplay ctl {path.name} stop)")


def _usual_columns(runs: list[RunSummary]) -> str:
    """The default columns, and the host where a run of another one is among them: the folder is shared."""
    shared = any(run.status.host not in (None, this_host()) for run in runs)
    return DEFAULT_COLUMNS.replace("state,", "state,host,") if shared else DEFAULT_COLUMNS


def _is_stale(run: RunSummary) -> bool:
    return run.status.active and run.status.age is not None and run.status.age > STALE_SECONDS


def _leave_out(cells: dict[str, list[str]], width: int, *, keep: set[str]) -> None:
    """Drop columns that are empty, then the least wanted ones but for `keep`, until the rest fits into `width`."""
    for name in [name for name, column in cells.items() if not any(column)]:
        del cells[name]
    for name in [name for name in _LEAST_WANTED if name not in keep]:
        if sum(max(len(_head(key)), *map(len, column)) + 2 for key, column in cells.items()) - 2 <= width:
            return
        cells.pop(name, None)


def _print_table(console: Console, runs: list[RunSummary], cells: dict[str, list[str]]) -> None:
    """The cells in columns, then why runs are broken or lost. Rich's own table takes a millisecond a row."""
    texts = {name: [_head(name), *column] for name, column in cells.items()}
    widths = _fit({name: max(map(cell_len, column)) for name, column in texts.items()}, console.width)
    right = {name: any(isinstance(value_of(run, name), int | float) for run in runs) for name in cells}
    padded = [[_pad(text, widths[name], right=right[name]) for text in column] for name, column in texts.items()]
    head, *rows = ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]
    reasons = [f"{run.name}: {run.status.reason}" for run in runs if run.state in _ILL and run.status.reason]
    found = Text(head, style="bold")
    for run, row in zip(runs, rows, strict=True):
        found.append(f"\n{row}", style=_STYLES.get(run.state, ""))
    for reason in reasons:
        found.append(f"\n{reason}", style="dim")
    console.print(found, soft_wrap=True)


def _fit(widths: dict[str, int], room: int) -> dict[str, int]:
    """The widths of the columns, of which the widest give way until all of them fit."""
    widths = dict(widths)
    while sum(widths.values()) + 2 * (len(widths) - 1) > room:
        widest = max(widths, key=widths.__getitem__)
        if widths[widest] <= 1:
            break
        widths[widest] -= 1
    return widths


def _pad(text: str, width: int, *, right: bool) -> str:
    if cell_len(text) > width:
        return set_cell_size(text, max(0, width - 1)) + "…"
    blank = " " * (width - cell_len(text))
    return blank + text if right else text + blank


def _head(name: str) -> str:
    return _HEADS.get(ALIASES.get(name, name), name)


def _cell(run: RunSummary, name: str) -> str:
    field = ALIASES.get(name, name)
    value = value_of(run, name)
    if field == "age" and not run.status.active:
        return ""  # the age of a finished run's last word tells nothing
    if value is None or (field in FIELDS and value == 0 and field in ("step", "tokens", "samples")):
        return ""
    if field in _FORMATS and isinstance(value, int | float):
        return _FORMATS[field](value)
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return format_count(value) if isinstance(value, int) or abs(value) >= 1e4 else f"{value:.4g}"
