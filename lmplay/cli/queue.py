"""`lmplay queue` and `lmplay sweep`: runs one after another on each device, unattended."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from lmplay.runs import is_alive, runs_root, summarize
from lmplay.runs.keeper import find_devices, keep, keeper_file, refuse_busy, spawn_keeper
from lmplay.runs.layout import QUEUE, check_run_name, read_json_object
from lmplay.runs.logout import logout_notice
from lmplay.runs.queue import KEEPER_LOG, OVER, RUNNING, WAITING, Entry, Queue
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.figures import format_seconds
from lmplay.utils.files import to_json

# Everything after the options of the queue belongs to `lmplay run`.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
_OURS = ("--name", "--device", "--detach", "--json", "--new")

app = typer.Typer(
    name="queue",
    help="Runs one after another on each device, unattended: add them, start a keeper, leave.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(parent: typer.Typer) -> None:
    parent.add_typer(app)
    parent.command("sweep", context_settings=_PASSED_ON)(sweep)


@app.command("add", context_settings=_PASSED_ON)
def add(
    context: typer.Context,
    experiment: str = typer.Argument(help="Name of the experiment; all further options are those of `lmplay run`."),
    name: str | None = typer.Option(None, help="Name of the run. [experiment, time and four digits]"),
    device: str = typer.Option(
        "auto", help="Device it has to have, such as cuda:1; auto takes the first that is free."
    ),
    group: str = typer.Option("", help="Name under which `compare` and `plot` find it together with others."),
    check: bool = typer.Option(True, "--check/--no-check", help="Refuse what `lmplay run` would refuse."),
) -> None:
    """Put a run at the end of the queue: lmplay queue add gpt2ish --plan quickstart --set train.lr=1e-3"""
    arguments = [experiment, *context.args]
    _refuse_ours(context.args)
    if check:
        check_run_arguments(arguments)
    entry = Queue().add(arguments, name=name, device=device, group=group)
    typer.echo(f"{entry.run} waits in the queue (place {_place(entry)})")
    _hint_at_keeper()


@app.command("list")
def list_(
    json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
    over: int = typer.Option(10, min=0, help="How many of those that are over to show."),
) -> None:
    """Show what is being run, what waits, and how the latest went."""
    queue = Queue()
    entries = queue.entries()
    keepers = _keepers(queue.root)
    if json:
        typer.echo(to_json({"keepers": keepers, "entries": [_as_json(queue, entry) for entry in entries]}))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    serving = ", ".join(f"{keeper['device']} (process {keeper['pid']})" for keeper in keepers)
    console.print(f"keeper: {serving}" if keepers else "no keeper: lmplay queue start", markup=False)
    finished = [entry for entry in entries if entry.state in OVER]
    shown = [*finished[max(0, len(finished) - over) :], *(entry for entry in entries if entry.state not in OVER)]
    if not shown:
        console.print("The queue is empty: lmplay queue add EXPERIMENT --plan quickstart", markup=False)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("id", "run", "state", "device", "group", "asked"):
        table.add_column(head, overflow="fold" if head == "asked" else "ellipsis", no_wrap=head != "asked")
    for entry in shown:
        state = f"{entry.state}: {entry.reason}" if entry.reason and entry.state in OVER else _state(queue, entry)
        device = entry.on_device.partition("/")[2] or entry.device
        table.add_row(entry.id, entry.run, state, device, entry.group, shlex.join(entry.arguments))
    console.print(table)


@app.command("move")
def move(
    entry: str = typer.Argument(help="Entry by id, run name, or place among those that wait."),
    place: int = typer.Argument(min=1, help="Place it is to have, from 1."),
) -> None:
    """Let an entry come earlier or later."""
    queue = Queue()
    found = queue.find(entry)
    queue.move(found.id, place)
    typer.echo(f"{found.run} has place {_place(found)}")


@app.command("remove")
def remove(
    entries: list[str] = typer.Argument(help="Entries by id, run name, or place among those that wait."),
) -> None:
    """Take entries out of the queue. Runs that were made stay."""
    queue = Queue()
    for found in [queue.find(entry) for entry in entries]:
        queue.remove(found.id)
        typer.echo(f"{found.run} is out of the queue")


@app.command("clear")
def clear() -> None:
    """Forget the entries that are over. Their runs stay."""
    typer.echo(f"{Queue().clear()} forgotten")


@app.command("start")
def start(
    devices: str | None = typer.Option(None, help="Devices to serve, with commas between. [all CUDA cards, else cpu]"),
    foreground: bool = typer.Option(
        False, "--foreground", help="Stay here instead of starting a keeper that outlives us."
    ),
    until_empty: bool = typer.Option(False, "--until-empty", help="With --foreground: end when nothing is left."),
) -> None:
    """Start the queue's keeper: it gives each device one run after another, until it is stopped."""
    root = runs_root()
    wanted = [device.strip() for device in devices.split(",") if device.strip()] if devices else find_devices()
    if foreground:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
        keep(root, wanted, until_empty=until_empty)
        return
    if until_empty:
        raise WrongUsageError("--until-empty goes with --foreground; a keeper in the background waits for more")
    for device in wanted:
        refuse_busy(device)
    pid = spawn_keeper(root, wanted)
    log = root / QUEUE / KEEPER_LOG
    end = time.monotonic() + 20
    while any(keeper_pid(root, device) != pid for device in wanted):
        if not is_alive({"pid": pid}) or time.monotonic() > end:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise LMPlayError(f"the keeper did not start: {lines[-1] if lines else 'it said nothing'} ({log})")
        time.sleep(0.05)
    typer.echo(f"the keeper is process {pid} and serves {', '.join(wanted)}; it logs to {log}")
    if notice := logout_notice("lmplay queue start"):
        typer.echo(notice)


@app.command("stop")
def stop() -> None:
    """End the keepers of this queue on this machine. Runs that are going go on; nothing new is started."""
    keepers = _keepers(runs_root())
    if not keepers:
        raise LMPlayError("no keeper serves this queue on this machine")
    for pid in {keeper["pid"] for keeper in keepers}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 20
        while is_alive({"pid": pid}) and time.monotonic() < end:
            time.sleep(0.05)
        typer.echo(f"the keeper (process {pid}) has ended")


def sweep(
    context: typer.Context,
    experiment: str = typer.Argument(help="Name of the experiment; all further options are those of `lmplay run`."),
    sets: list[str] | None = typer.Option(
        None, "--set", metavar="KEY=VALUE,VALUE", help="A setting with the values to try; repeat it for a grid."
    ),
    seeds: str = typer.Option("1", help="How many seeds (3 means 0, 1, 2), or which: 4,5,6."),
    group: str | None = typer.Option(None, help="Name of the group. [EXPERIMENT-sweep and the time]"),
    device: str = typer.Option("auto", help="Device that the runs have to have; auto takes the first that is free."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the runs and queue nothing."),
    check: bool = typer.Option(True, "--check/--no-check", help="Refuse what `lmplay run` would refuse."),
) -> None:
    """Queue a grid of runs as a group: lmplay sweep gpt2ish --set train.lr=1e-4,3e-4,1e-3 --seeds 3"""
    _refuse_ours(context.args, "--seed")
    axes = [_values(assignment) for assignment in sets or ()]
    name = check_run_name(group or f"{experiment}-sweep-{time.strftime('%Y%m%d-%H%M%S')}")
    planned: list[tuple[str, list[str]]] = []
    checked: set[tuple[str, ...]] = set()
    for choice in itertools.product(*axes):
        for seed in _seeds(seeds):
            settings = [part for assignment in choice for part in ("--set", "=".join(assignment))]
            arguments = [experiment, *context.args, *settings, "--seed", str(seed)]
            # What has one value only tells no run from another.
            telling = [assignment for assignment, axis in zip(choice, axes, strict=True) if len(axis) > 1]
            planned.append((_run_name(name, telling, seed), arguments))
            if check and tuple(settings) not in checked:
                checked.add(tuple(settings))
                check_run_arguments(arguments)
    for run, arguments in planned:
        typer.echo(f"{run}: lmplay run {shlex.join(arguments)}")
    if dry_run:
        return
    queue = Queue()
    for run, arguments in planned:
        queue.add(arguments, name=run, device=device, group=name)
    typer.echo(f"{len(planned)} runs wait in the queue as group {name}; compare them with: lmplay compare {name}")
    _hint_at_keeper()


def check_run_arguments(arguments: Sequence[str]) -> None:
    """Raise what `lmplay run` would raise for these arguments, without making a run."""
    from lmplay.cli.main import app as whole

    with contextlib.redirect_stdout(io.StringIO()):
        whole(["run", *arguments, "--dump-config"], standalone_mode=False, prog_name="lmplay")


def keeper_pid(root: Path, device: str) -> int | None:
    """The process that keeps this device for the queue in `root`, if it lives."""
    try:
        mark = read_json_object(keeper_file(root, device), of="the queue")
    except LMPlayError:
        return None
    return int(mark["pid"]) if is_alive(mark) else None


def _keepers(root: Path) -> list[dict[str, Any]]:
    """The living keepers of this machine."""
    found = []
    for file in sorted((root / QUEUE).glob("keeper-*.json")):
        try:
            mark = read_json_object(file, of="the queue")
        except LMPlayError:
            continue
        if is_alive(mark):
            device = file.stem.removeprefix(f"keeper-{mark.get('host')}-").replace("cuda-", "cuda:")
            found.append({"device": device, "pid": mark["pid"], "host": mark.get("host")})
    return found


def _refuse_ours(passed_on: Iterable[str], *more: str) -> None:
    for argument in passed_on:
        option = argument.partition("=")[0]
        if option in (*_OURS, *more):
            raise WrongUsageError(f"{option} is not passed on to the runs: see --help")


def _values(assignment: str) -> list[tuple[str, str]]:
    """`train.lr=1e-4,3e-4` as [(key, value), ...]; commas inside of brackets and quotes belong to a value."""
    key, equals, text = assignment.partition("=")
    if not equals or not key or not text:
        raise WrongUsageError(f"--set {assignment}: give it as key=value,value, for example train.lr=1e-4,3e-4")
    values, depth, quote, current = [], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        depth += (character in "[{(") - (character in "]})")
        if character == "," and not depth and not quote:
            values.append(current)
            current = ""
        else:
            current += character
    values.append(current)
    if "" in values:
        raise WrongUsageError(f"--set {assignment}: there is a value missing between two commas")
    return [(key, value) for value in values]


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise WrongUsageError(f"--seeds {text}: give a number of seeds, or the seeds with commas between") from None
    if len(numbers) > 1:
        return numbers
    if numbers[0] < 1:
        raise WrongUsageError(f"--seeds {text}: at least one")
    return list(range(numbers[0]))


def _run_name(group: str, telling: Iterable[tuple[str, str]], seed: int) -> str:
    """`<group>-lr0.001-num_blocks2-s0`, in letters that a run's name may have."""
    parts = [f"{key.rpartition('.')[2]}{value}" for key, value in telling]
    text = "-".join([group, *parts, f"s{seed}"])
    return check_run_name("".join(one if one.isascii() and (one.isalnum() or one in "._+=-") else "_" for one in text))


def _place(entry: Entry) -> int:
    waiting = [other.id for other in Queue().entries() if other.state == WAITING]
    return waiting.index(entry.id) + 1 if entry.id in waiting else 0


def _state(queue: Queue, entry: Entry) -> str:
    if entry.state != RUNNING:
        return entry.state
    summary = summarize(queue.root / entry.run)
    done = "" if summary.fraction is None else f" {summary.fraction:.0%}"
    left = "" if summary.seconds_left is None else f", {format_seconds(summary.seconds_left)} left"
    return f"{summary.state}{done}{left}"


def _as_json(queue: Queue, entry: Entry) -> dict[str, Any]:
    run = summarize(queue.root / entry.run).as_json() if entry.state == RUNNING else None
    return {**{key: value for key, value in asdict(entry).items() if key != "launcher"}, "status": run}


def _hint_at_keeper() -> None:
    if not _keepers(runs_root()):
        typer.echo("nobody keeps the queue yet: lmplay queue start")
