"""`lmplay data`: what is in the token cache, and preparing, showing, verifying and removing it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmplay.cli.progress import data_progress
from lmplay.plans import KNOWN_DATASETS, PackingMode, Plan, list_plans, load_plan, parse_plan
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.figures import format_bytes, format_count, format_seconds
from lmplay.utils.files import to_json
from lmplay.utils.names import did_you_mean

if TYPE_CHECKING:
    from lmplay.data.facts import DatasetFacts, Span

_BAR_WIDTH = 40
_DOCUMENT_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red")

app = typer.Typer(
    name="data",
    help="List the token cache; prepare, show, verify and remove datasets.",
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(parent: typer.Typer) -> None:
    parent.add_typer(app)


@app.callback()
def list_(
    context: typer.Context,
    json: bool = typer.Option(False, "--json", help="Print a list of objects: name, documents, tokens, disk, ..."),
) -> None:
    """List the datasets that are prepared: the stores of the token cache, the last used first."""
    if context.invoked_subcommand is not None:
        return
    from lmplay.data.shards.store import stores_folder
    from lmplay.data.shards.upkeep import stores

    found = stores()
    if json:
        rows = [
            {
                "name": store.name,
                "path": str(store.folder),
                "documents": store.manifest.documents,
                "tokens": store.manifest.tokens,
                "learned": store.manifest.learned,
                "disk": store.manifest.size,
                "last_used": store.last_used,
                "key": store.manifest.key,
            }
            for store in found
        ]
        typer.echo(to_json(rows, indent=2))
        return
    if not found:
        typer.echo(f"Nothing is prepared yet in {stores_folder()}; lmplay data prepare PLAN does it.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("store", no_wrap=True)
    for head in ("documents", "tokens", "disk", "last used"):
        table.add_column(head, justify="right", no_wrap=True)
    for store in found:
        table.add_row(
            store.name,
            format_count(store.manifest.documents),
            format_count(store.manifest.tokens),
            format_bytes(store.manifest.size),
            f"{format_seconds(time.time() - store.last_used)} ago",
        )
    console = Console(highlight=False)
    console.print(table)
    total = sum(store.manifest.size for store in found)
    console.print(f"\n{format_bytes(total)} in {stores_folder()}", style="dim", markup=False)


@app.command()
def prepare(
    plan: str = typer.Argument(..., help="Name of a plan, or path of a plan file."),
    refresh: bool = typer.Option(
        False, "--refresh", help="Ask the hub for newer versions of datasets that the plan leaves open."
    ),
    json: bool = typer.Option(False, "--json", help="Print a list of objects, one a dataset."),
    stream: bool = typer.Option(
        False,
        "--stream",
        help="With --json, an object a line: first progress as {what, done, total, seconds}, last {datasets}.",
    ),
) -> None:
    """Turn the datasets of a plan into token shards now, so that a run starts at once and without a network.

    Stopped at any moment, it goes on where it was. Two processes at once share the work of one.
    """
    from lmplay.data.rows.diet import open_parts
    from lmplay.data.sources import open_source
    from lmplay.data.text.documents import Reader

    if stream and not json:
        raise WrongUsageError("--stream goes with --json")
    found = load_plan(plan)
    rows: list[dict[str, Any]] = []
    with data_progress(stream=stream) as progress:
        for name in _used(found):
            spec = found.datasets[name]
            if refresh:
                open_source(spec, columns=Reader(spec).columns, split=None, folder=found.folder).refresh()
            training, held = open_parts(found, name, progress)
            stores = {training.store.folder: training.store, held.store.folder: held.store}
            rows.append(
                {
                    "dataset": name,
                    "documents": training.num_documents,
                    "tokens": training.num_tokens,
                    "held_out_documents": held.num_documents,
                    "held_out_tokens": held.num_tokens,
                    "learned": training.num_learned,
                    "empty": training.store.manifest.empty,
                    "disk": sum(store.manifest.size for store in stores.values()),
                    "paths": [str(folder) for folder in stores],
                }
            )
    if json:
        typer.echo(to_json({"datasets": rows}) if stream else to_json(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("dataset", no_wrap=True)
    for head in ("documents", "tokens", "learned", "held out", "empty rows", "disk"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["dataset"],
            format_count(row["documents"]),
            format_count(row["tokens"]),
            f"{row['learned'] / row['tokens']:.0%}",
            f"{format_count(row['held_out_tokens'])} tokens",
            format_count(row["empty"]),
            format_bytes(row["disk"]),
        )
    Console(highlight=False).print(table)


@app.command()
def show(
    dataset: str = typer.Argument(..., help="Name of a dataset: of --plan, of a ready plan, or pydocs, stdlib, ..."),
    plan: str | None = typer.Option(None, "--plan", help="Plan that declares the dataset: a name, or a path."),
    row: int | None = typer.Option(None, "--row", min=0, help="Show this packed row, with its mask and its borders."),
    sequence_length: int = typer.Option(1024, "--sequence-length", min=1, help="Tokens in a row."),
    packing: str = typer.Option("stream", help="How --row fills: stream, document or pad."),
    json: bool = typer.Option(False, "--json", help="Print one object: the facts, and the stretches of the row."),
) -> None:
    """Show what a dataset is like: documents, tokens, lengths, how well it packs, and one row if asked.

    A dataset that is not prepared yet is prepared first.
    """
    from lmplay.data.facts import dataset_facts, row_spans
    from lmplay.data.rows.diet import check_rows

    check_rows(packing, sequence_length)
    found = _plan_with(dataset, plan)
    with data_progress() as progress:
        facts = dataset_facts(found, dataset, sequence_length=sequence_length, progress=progress)
    spans = None
    if row is not None:
        mode = cast(PackingMode, packing)
        spans = row_spans(found, dataset, row, sequence_length=sequence_length, packing=mode)
    if json:
        answer = asdict(facts)
        if spans is not None:
            answer["row"] = {"number": row, "packing": packing, "spans": [asdict(span) for span in spans]}
        typer.echo(to_json(answer, indent=2))
        return
    console = Console(highlight=False)
    if spans is None:
        _print_facts(console, facts, sequence_length)
    else:
        console.print(f"{dataset}, row {row}, {packing}, {sequence_length} tokens", style="bold", markup=False)
        if console.color_system is None:
            for span in spans:
                console.print(_span_lines(span), markup=False, soft_wrap=True)
            return
        console.print(_row_text(spans))
        console.print(
            "\ncolours change at borders of documents; dim: read, not learned; ¶ end of text; · padding",
            style="dim",
            markup=False,
        )


@app.command()
def verify(
    plan: str | None = typer.Argument(None, help="Plan whose datasets are verified and mended; nothing: the cache."),
    json: bool = typer.Option(False, "--json", help="Print a list of objects: name, damaged, mended."),
) -> None:
    """Read every byte of the token shards and hold it against the sums.

    With a plan, its datasets are made again where they are damaged. Without one, everything in the cache is looked at,
    what is damaged is made again when it is next used, and the exit status is 1.
    """
    from lmplay.data.estimate import located
    from lmplay.data.rows.diet import open_parts
    from lmplay.data.shards.upkeep import stores, verify

    found = load_plan(plan) if plan is not None else None
    chosen = stores()
    if found is not None:
        places = [
            located(found, found.datasets[name], held_out=held_out)
            for name in _used(found)
            for held_out in ((False, True) if found.datasets[name].validation.split else (False,))
        ]
        wanted = {place.folder for place in places if place is not None}
        chosen = [store for store in chosen if store.folder in wanted]
    rows: list[dict[str, Any]] = []
    with data_progress() as progress:
        for store in chosen:
            damaged = verify(store, progress)
            rows.append({"name": store.name, "shards": len(store.manifest.shards), "damaged": damaged, "mended": False})
        if found is not None and any(row["damaged"] for row in rows):
            for name in _used(found):
                open_parts(found, name, progress)
            for row in rows:
                row["mended"] = bool(row["damaged"])
    if json:
        typer.echo(to_json(rows, indent=2))
    else:
        for row in rows:
            numbers = ", ".join(str(number) for number in row["damaged"])
            if not row["damaged"]:
                typer.echo(f"{row['name']}: {row['shards']} shards, all sound")
            elif row["mended"]:
                typer.echo(f"{row['name']}: {row['shards']} shards, made again: {numbers}")
            else:
                typer.echo(f"{row['name']}: {row['shards']} shards, damaged: {numbers}")
        if not rows:
            typer.echo("nothing is prepared, so there is nothing to verify")
    if any(row["damaged"] and not row["mended"] for row in rows):
        raise LMPlayError("some shards are damaged; they are made again when they are next used")


@app.command()
def prune(
    unused: float | None = typer.Option(
        None,
        "--unused",
        min=0,
        metavar="DAYS",
        help="Remove prepared datasets too that were not used for so many days.",
    ),
    everything: bool = typer.Option(False, "--all", help="Remove everything that is prepared."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would go."),
    json: bool = typer.Option(False, "--json", help="Print a list of objects: path, size, reason, removed."),
) -> None:
    """Remove what the token cache no longer needs: unfinished preparations, old formats, plans of rows that are gone.

    Prepared datasets stay, unless --unused or --all says so; they can always be made again from their sources.
    """
    from lmplay.data.shards.upkeep import leftovers, remove

    rows = []
    for leftover in leftovers(unused_days=0 if everything else unused):
        removed = not dry_run and remove(leftover)
        rows.append({"path": str(leftover.path), "size": leftover.size, "reason": leftover.reason, "removed": removed})
        if not json:
            verb = "would remove" if dry_run else "removed" if removed else "in use, kept"
            typer.echo(f"{verb} {leftover.path} ({format_bytes(leftover.size)}): {leftover.reason}")
    if json:
        typer.echo(to_json(rows, indent=2))
    elif not rows:
        typer.echo("nothing to remove")


def _used(plan: Plan) -> list[str]:
    return [name for name in plan.datasets if any(name in stage.datasets for stage in plan.stages)]


def _plan_with(dataset: str, plan: str | None) -> Plan:
    """The plan that declares a dataset: the one that was named, a ready one, or one made for a known dataset."""
    if plan is not None:
        found = load_plan(plan)
        if dataset not in found.datasets:
            hint = did_you_mean(dataset, found.datasets) or f"; it has {', '.join(found.datasets)}"
            raise WrongUsageError(f"the plan {plan} has no dataset {dataset!r}{hint}")
        return found
    if dataset in KNOWN_DATASETS:
        return parse_plan({"show": {"dataset": dataset, "epochs": 1}}, name="show", folder=Path.cwd())
    ready = [load_plan(name) for name in list_plans()]
    for candidate in ready:
        if dataset in candidate.datasets:
            return candidate
    known = [*KNOWN_DATASETS, *(name for candidate in ready for name in candidate.datasets)]
    hint = did_you_mean(dataset, known) or "; name the plan that declares it with --plan"
    raise WrongUsageError(f"there is no dataset {dataset!r}{hint}")


def _print_facts(console: Console, facts: DatasetFacts, sequence_length: int) -> None:
    console.print(facts.name, style="bold", markup=False)
    learned = f", {facts.learned / facts.tokens:.1%} learned" if facts.learned < facts.tokens else ""
    empty = f", {facts.empty:,} empty rows left out" if facts.empty else ""
    console.print(f"{facts.documents:,} documents, {facts.tokens:,} tokens{learned}{empty}")
    console.print(f"held out: {facts.held_out_documents:,} documents, {facts.held_out_tokens:,} tokens")
    console.print(facts.folder, style="dim", markup=False, soft_wrap=True)
    lengths = facts.lengths
    console.print(
        f"\ntokens of a document: mean {lengths.mean:,.0f}, median {lengths.median:,}, longest {lengths.longest:,}"
    )
    most = max(count for _, _, count in lengths.histogram)
    for first, last, count in lengths.histogram:
        bar = "█" * max(round(_BAR_WIDTH * count / most), 1 if count else 0)
        console.print(f"{first:>12,} - {last - 1:<12,} {bar} {count:,}", markup=False)
    console.print(f"\nrows of {sequence_length} tokens")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("packing")
    for head in ("rows", "full", "targets", "cut", "dropped"):
        table.add_column(head, justify="right")
    for mode, summary in facts.packings.items():
        table.add_row(
            mode,
            f"{summary.rows:,}",
            f"{summary.fill:.2%}",
            f"{summary.targets:,}",
            f"{summary.cut_documents:,}",
            f"{summary.dropped_documents:,}",
        )
    console.print(table)
    for notice in dict.fromkeys(summary.notice for summary in facts.packings.values()):
        if notice is not None:
            console.print(notice, style="dim", markup=False)


def _span_lines(span: Span) -> str:
    """A stretch of a row where there are no colours to tell it by."""
    kind = "padding" if span.padding else "learned" if span.learned else "read"
    return f"[document {span.document}, {kind}, {span.tokens} tokens]\n{_marked_ends(span.text)}".rstrip()


def _marked_ends(text: str) -> str:
    return text.replace("<|endoftext|>", "¶")


def _row_text(spans: list[Span]) -> Text:
    text = Text()
    for span in spans:
        if span.padding:
            text.append(f" ·· {span.tokens} tokens of padding", style="dim")
            continue
        colour = _DOCUMENT_COLOURS[span.document % len(_DOCUMENT_COLOURS)]
        text.append(_marked_ends(span.text), style=colour if span.learned else f"dim {colour}")
    return text
