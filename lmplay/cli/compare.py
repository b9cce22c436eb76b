"""`lmplay compare`: is this idea better than the baseline, at equal tokens (or samples, steps, time, FLOPs)?"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from lmplay.runs.labels import resolve_runs
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.figures import format_count, format_seconds
from lmplay.utils.files import to_json

if TYPE_CHECKING:
    from lmplay.stats.standing import Comparison, Standing

RUNS_HELP = "Runs, groups (of a sweep) and patterns such as 'wide-*'. Runs that differ in the seed only become one."


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    runs: list[str] = typer.Argument(metavar="RUN|GROUP...", help=RUNS_HELP),
    baseline: str | None = typer.Option(None, help="Run or group to hold the others against. [the first]"),
    x: str = typer.Option("tokens", help="What is to be equal: tokens, samples, steps, time or flops."),
    stage: str | None = typer.Option(None, help="Only this stage of the plan, counted from its beginning."),
    json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
    as_csv: bool = typer.Option(False, "--csv", help="The table as CSV."),
    markdown: bool = typer.Option(False, "--markdown", help="Table and verdict as Markdown."),
) -> None:
    """Compare runs by their validation at equal x, with a verdict in words; exits with 1 where that can't be done."""
    if json + as_csv + markdown > 1:
        raise WrongUsageError("--json, --csv and --markdown exclude each other")
    from lmplay.stats.compare import compare_runs, group_by_seed
    from lmplay.stats.curves import AXES, load_curve

    if x not in AXES:
        raise WrongUsageError(f"--x {x}: there are {', '.join(AXES)}")
    paths = resolve_runs(runs)
    curves = [load_curve(path, stage=stage) for path in paths]
    # Seeds of one setting have a name in the table that is no run's.
    if baseline is not None and baseline not in {group.name for group in group_by_seed(curves)}:
        against = resolve_runs([baseline])
        baseline = against[0].name
        curves += [load_curve(path, stage=stage) for path in against if path not in paths]
    result = compare_runs(curves, baseline=baseline, axis=x, stage=stage)
    if json:
        typer.echo(to_json(result.as_json()))
    elif as_csv:
        typer.echo(_csv(result), nl=False)
    elif markdown:
        typer.echo(_markdown(result))
    else:
        _print(result)
    if not result.comparable:
        raise typer.Exit(1)


def _print(result: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if result.comparable:
        console.print(_where(result), soft_wrap=True)
        # Facts down, groups across: names are long and figures many, and a terminal has 80 columns.
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", no_wrap=True)
        for standing in result.standings:
            table.add_column(standing.name, justify="right", overflow="fold")
        for name, *cells in _facts(result):
            if any(cells):
                table.add_row(name, *cells)
        console.print(table)
        for note in result.notes:
            console.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)
    console.print(result.verdict, style="bold", soft_wrap=True, markup=False)


def _where(result: Comparison) -> str:
    stage = f" of stage {result.stage}" if result.stage else ""
    assert result.x is not None
    at = format_seconds(result.x) if result.axis == "time" else f"{format_count(result.x)} {result.axis}"
    return f"Validation at {at}{stage}"


def _facts(result: Comparison) -> list[tuple[str, ...]]:
    """(fact, one cell a group)."""
    standings = result.standings
    compared = standings if len(standings) > 1 else ()
    settings = list(dict.fromkeys(key for standing in standings for key in standing.settings))
    rows: list[tuple[str, ...]] = [
        ("seeds", *(str(standing.seeds) for standing in standings)),
        ("validation loss", *(_loss(standing) for standing in standings)),
        ("  bootstrap 95%", *(_interval(standing.loss_interval, "") for standing in standings)),
        ("difference", *(_number(standing.difference, "+.4f") for standing in standings)),
        ("  95% interval", *(_interval(standing.interval, "+") for standing in standings)),
        ("  p value", *(_number(standing.p_value, ".3g") for standing in standings)),
        ("perplexity", *(_number(standing.perplexity, ",.2f") for standing in standings)),
        ("bits per byte", *(_number(standing.bits_per_byte, ".4f") for standing in standings)),
        ("token accuracy", *(_number(standing.accuracy, ".2%") for standing in standings)),
        ("speed-up, tokens", *(_number(standing.speedup_tokens, ".2f", "x") for standing in compared)),
        ("speed-up, time", *(_number(standing.speedup_time, ".2f", "x") for standing in compared)),
        ("parameters", *(format_count(s.parameters) if s.parameters else "" for s in standings)),
        ("FLOPs a token", *(format_count(s.flops_per_token) if s.flops_per_token else "" for s in standings)),
        (
            "difference at equal FLOPs",
            *(_number(standing.difference_at_equal_flops, "+.4f") for standing in standings),
        ),
    ]
    for key in settings:
        own = [str(standing.settings[key]) if key in standing.settings else "" for standing in standings]
        rows.append((key, *(cell or ("=" if index else "") for index, cell in enumerate(own))))
    return rows


def _loss(standing: Standing) -> str:
    if standing.validation_loss is None:
        return "diverged" if standing.diverged else ""
    spread = f" ± {standing.deviation:.4f}" if standing.deviation is not None else ""
    return f"{standing.validation_loss:.4f}{spread}"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def _interval(interval: tuple[float, float] | None, sign: str) -> str:
    return "" if interval is None else f"{interval[0]:{sign}.4f} to {interval[1]:{sign}.4f}"


def _csv(result: Comparison) -> str:
    text = io.StringIO()
    rows = [_flat(standing.as_json()) for standing in result.standings]
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("interval"):
            flat[f"{key}_low"], flat[f"{key}_high"] = value or (None, None)
        elif isinstance(value, list | tuple):
            flat[key] = " ".join(map(str, value))
        elif isinstance(value, dict):
            flat[key] = " ".join(f"{name}={item}" for name, item in value.items())
        else:
            flat[key] = value
    return flat


def _markdown(result: Comparison) -> str:
    if not result.comparable:
        return result.verdict
    facts = [row for row in _facts(result) if any(row[1:])]
    lines = [_where(result), "", _markdown_row(["", *(standing.name for standing in result.standings)])]
    lines.append("|---|" + "---:|" * len(result.standings))
    lines += [_markdown_row(row) for row in facts]
    return "\n".join(
        [*lines, "", *(f"- {note}" for note in result.notes), *([""] if result.notes else []), result.verdict]
    )


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |"
