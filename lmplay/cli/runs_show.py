"""`lmplay runs show|diff|clone`: all that is known of one run, how two differ in their settings, a changed repeat."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from lmplay.cli.viewer_panel import describe_event, stage_line
from lmplay.plans import list_plans, load_plan, plans_folder
from lmplay.runs import JsonlTail, list_checkpoints, read_run_file, resolve_run
from lmplay.runs.layout import CHECKPOINTS, EVENTS
from lmplay.runs.resolve import read_pointer
from lmplay.runs.settings import all_settings, differing
from lmplay.runs.summary import RunSummary, summarize
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.figures import format_bytes, format_count, format_loss, format_seconds
from lmplay.utils.files import to_json

RUN_HELP = "Run by name, beginning of the name, path, or `last`."


def register(app: typer.Typer) -> None:
    app.command("show")(show)
    app.command("diff")(diff)
    app.command("clone")(clone)


def show(
    run: str = typer.Argument(help=RUN_HELP),
    events: int = typer.Option(12, min=0, help="How many of the newest events to show."),
    json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Show a run: what was asked, where it stands, its code and versions, stages, checkpoints and events."""
    path = resolve_run(run)
    asked = read_run_file(path)
    summary = summarize(path)
    checkpoints = [_checkpoint(folder) for folder in list_checkpoints(path)]
    happened = JsonlTail(path / EVENTS).read()
    if json:
        pointers = {name: _name_of(read_pointer(path / CHECKPOINTS, name)) for name in ("latest", "best")}
        answer = {**summary.as_json(), "asked": asked, "config": dict(summary.config), "checkpoints": checkpoints}
        answer["by_stage"] = summary.status.fields.get("by_stage") or []
        typer.echo(to_json({**answer, **pointers, "status": dict(summary.status.fields), "events": happened}))
        return
    console = Console(highlight=False)
    for title, facts in _sections(path, asked, summary):
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
        )
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for name, value in facts.items():
            table.add_row(f"  {name}", str(value))
        if facts:
            console.print(table)
    best = _name_of(read_pointer(path / CHECKPOINTS, "best"))
    console.print("checkpoints", style="bold")
    for checkpoint in checkpoints:
        mark = "  best" if checkpoint["name"] == best else ""
        saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(checkpoint["saved"]))
        console.print(
            f"  {checkpoint['name']:>10}  {format_bytes(checkpoint['bytes']):>10}  {saved}{mark}", markup=False
        )
    if not checkpoints:
        console.print("  none yet")
    console.print("events", style="bold")
    for row in happened[max(0, len(happened) - events) :]:
        console.print(f"  {_event_line(row)}", markup=False, soft_wrap=True)
    if len(happened) > events:
        console.print(f"  ({len(happened) - events} earlier; --events {len(happened)} shows them all)", style="dim")


def diff(
    first: str = typer.Argument(help=RUN_HELP),
    second: str = typer.Argument(help=RUN_HELP),
    everything: bool = typer.Option(False, "--all", help="Also code, git state, versions, host and command line."),
    json: bool = typer.Option(False, "--json", help="One JSON object on standard output: key: [first, second]."),
) -> None:
    """Show the settings in which two runs differ, and nothing else."""
    paths = [resolve_run(first), resolve_run(second)]
    one, other = (all_settings(read_run_file(path), everything=everything) for path in paths)
    keys = differing(one, other)
    if json:
        typer.echo(to_json({key: [one.get(key), other.get(key)] for key in keys}))
        return
    console = Console(highlight=False)
    if not keys:
        console.print(f"{paths[0].name} and {paths[1].name} have the same settings.", markup=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    for head in ("setting", *(path.name for path in paths)):
        table.add_column(head, overflow="fold")
    for key in keys:
        table.add_row(key, _shown(one, key), _shown(other, key))
    console.print(table)


def clone(
    run: str = typer.Argument(help=RUN_HELP),
    sets: list[str] | None = typer.Option(None, "--set", metavar="KEY=VALUE", help="A setting to change; repeatable."),
    experiment: str | None = typer.Option(None, "--experiment", help="Another experiment under the same settings."),
    seed: int | None = typer.Option(None, help="Another seed."),
    name: str | None = typer.Option(None, help="Name of the new run."),
    detach: bool = typer.Option(False, "--detach", help="Start it and return."),
    only_print: bool = typer.Option(False, "--print", help="Print the command line and start nothing."),
) -> None:
    """Print and start the command that repeats a run, with changes."""
    path = resolve_run(run)
    arguments = repeat_arguments(path, sets=sets or (), experiment=experiment, seed=seed)
    arguments += ["--name", name] if name else ["--new"]
    arguments += ["--detach"] if detach else []
    typer.echo(shlex.join(["lmplay", *arguments]))
    if note := _note_on_plan(read_run_file(path), arguments[arguments.index("--plan") + 1]):
        typer.echo(note, err=True)
    if not only_print:
        sys.stdout.flush()
        raise typer.Exit(subprocess.run([sys.executable, "-m", "lmplay", *arguments], check=False).returncode)


def repeat_arguments(
    path: Path, *, sets: list[str] | tuple[str, ...] = (), experiment: str | None = None, seed: int | None = None
) -> list[str]:
    """The arguments of `lmplay` that ask again for what the run in `path` was asked for; `sets` beat its settings."""
    asked = read_run_file(path)
    request = asked.get("request")
    if not isinstance(request, Mapping):
        raise LMPlayError(f"the run {path.name} was not started by `lmplay run`: there is no command to repeat")
    changed = dict(assignment.partition("=")[::2] for assignment in sets)
    if wrong := [assignment for assignment in sets if "=" not in assignment]:
        raise WrongUsageError(f"--set {wrong[0]}: give it as key=value, for example train.lr=1e-3")
    arguments = ["run", experiment or str(request.get("experiment")), "--plan", _plan_of(path.name, asked)]
    arguments += ["--seed", str(request.get("seed", 0) if seed is None else seed)]
    if request.get("device") not in (None, "auto"):
        arguments += ["--device", str(request["device"])]
    if request.get("initial_model"):
        arguments += ["--initial-model", str(request["initial_model"])]
    for limit, value in (request.get("limits") or {}).items():
        if value is not None:
            arguments += ["--max-hours" if limit == "hours" else f"--{limit}", str(value)]
    settings = {
        f"{table}.{key}": _typed(value)
        for table in ("model", "train", "data")
        for key, value in (request.get(table) or {}).items()
    }
    for key, value in {**settings, **changed}.items():
        arguments += ["--set", f"{key}={value}"]
    return arguments


def _plan_of(run: str, asked: Mapping[str, Any]) -> str:
    """The plan as `--plan` takes it: by name where it comes with lmplay, else its file, which has to be there still."""
    plan = asked.get("plan")
    plan = plan if isinstance(plan, Mapping) else {}
    name, folder = str(plan.get("name", "default")), Path(str(plan.get("folder", plans_folder())))
    file = folder / f"{name}.json"
    if folder != plans_folder() and file.is_file():
        return str(file)
    if name in list_plans():
        return name
    raise LMPlayError(f"the plan of {run} has gone: there was a file {file}")


def _note_on_plan(asked: Mapping[str, Any], named: str) -> str:
    """What to know of a plan that was edited since the run was made; empty when it wasn't."""
    content = (asked.get("plan") or {}).get("content")
    if content is None or load_plan(named).model_dump(mode="json") == content:
        return ""
    return f"note: the plan {named} is not what it was then; the repeat takes it as it is now"


def _typed(value: Any) -> str:
    """A value as `--set` reads it back: text bare, everything else as JSON."""
    return value if isinstance(value, str) else to_json(value)


def _sections(path: Path, asked: Mapping[str, Any], summary: RunSummary) -> list[tuple[str, dict[str, Any]]]:
    status = summary.status
    state = f"{status.state} ({status.reason})" if status.reason else status.state
    now: dict[str, Any] = {"state": state, "path": path}
    if summary.labels.tags:
        now["tags"] = " ".join(summary.labels.tags)
    if summary.labels.note:
        now["note"] = summary.labels.note
    if status.step:
        done = "" if summary.fraction is None else f" ({summary.fraction:.0%})"
        now["position"] = (
            f"step {status.step:,}, {format_count(status.samples)} samples, {format_count(status.tokens)} tokens{done}"
        )
        now["loss"] = f"{format_loss(status.loss)}, validation {format_loss(status.validation_loss)}"
        now["trained for"] = format_seconds(status.time)
    if status.active:
        now["worker"] = f"process {status.pid} on {status.host}, last heard of {format_seconds(status.age)} ago"
    if isinstance(summary.cost.get("parameters"), int):
        now["parameters"] = f"{summary.cost['parameters']:,}"
    git = asked.get("git")
    code = {
        "git": f"{git.get('commit', '')[:12]} on {git.get('branch')}{', changed' if git.get('changed') else ''}"
        if isinstance(git, Mapping)
        else "not in a checkout",
        "versions": ", ".join(f"{name} {version}" for name, version in (asked.get("versions") or {}).items()),
        "started": f"by {asked.get('user')} on {asked.get('host')}, {_clock(asked.get('created'))}",
        "command": asked.get("command", ""),
    }
    plan = asked.get("plan")
    stages: dict[str, Any] = {}
    for stage in (plan.get("content") or {}).get("stages") or () if isinstance(plan, Mapping) else ():
        budget = next(
            (f"{stage[unit]:,} {unit}" for unit in ("tokens", "samples", "epochs") if stage.get(unit)), "1 epoch"
        )
        stages[str(stage.get("name"))] = f"{budget} of {_datasets(stage.get('datasets'))}"
    begun = [done for done in status.fields.get("by_stage") or () if done.get("steps")]
    for done in begun:
        stages[done["name"]] = f"{stages.get(done['name'], '')}\n{stage_line(done)}".lstrip()
    if len(begun) > 1:
        counters = ("steps", "samples", "tokens", "seconds")
        stages["all"] = stage_line({key: sum(done[key] for done in begun) for key in counters})
    settings = {"experiment": summary.experiment, "plan": summary.plan, "seed": summary.seed, **summary.config}
    return [
        (path.name, now),
        ("settings", settings),
        ("stages", stages),
        ("code", {k: v for k, v in code.items() if v}),
    ]


def _datasets(shares: Any) -> str:
    if isinstance(shares, Mapping):
        return ", ".join(f"{name} {share:g}" if len(shares) > 1 else str(name) for name, share in shares.items())
    return str(shares)


def _checkpoint(folder: Path) -> dict[str, Any]:
    files = [file.stat() for file in folder.rglob("*") if file.is_file()]
    saved = max((stat.st_mtime for stat in files), default=0.0)
    return {"name": folder.name, "path": str(folder), "bytes": sum(stat.st_size for stat in files), "saved": saved}


def _event_line(row: Mapping[str, Any]) -> str:
    details = describe_event(dict(row)) or " ".join(
        f"{key}={_brief(value)}"
        for key, value in row.items()
        if key not in ("event", "clock", "sample", "id", "time", "asked", "sender") and value != {}
    )
    return f"{_clock(row.get('clock'))}  {row.get('event', '?'):<10}  {details}"


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_brief(item)}" for key, item in value.items())[:120]
    return f"{value:.5g}" if isinstance(value, float) else str(value)[:60]


def _clock(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return " " * 19
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _name_of(path: Path | None) -> str | None:
    return path.name if path is not None else None


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else "-"
