"""`lmplay plans`: the plans there are, and what each stage of one costs before it is started."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from lmplay.plans import PackingMode, Plan, list_plans, load_plan
from lmplay.utils.figures import format_bytes, format_count, format_seconds
from lmplay.utils.files import to_json

if TYPE_CHECKING:
    from lmplay.data.estimate import DatasetEstimate, StageEstimate

DEFAULT_SEQUENCE_LENGTH = 1024

app = typer.Typer(
    name="plans",
    help="List the ready plans, and show what the stages of a plan cost.",
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(parent: typer.Typer) -> None:
    parent.add_typer(app)


@app.callback()
def list_(
    context: typer.Context,
    json: bool = typer.Option(False, "--json", help="Print a list of objects: name, description, datasets, stages."),
) -> None:
    """List the ready plans, each with what it is for and how large it is. Any path of a plan file works too."""
    if context.invoked_subcommand is not None:
        return
    plans = [load_plan(name) for name in list_plans()]
    if json:
        typer.echo(to_json([_plan_json(plan) for plan in plans], indent=2))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for plan in plans:
        table.add_row(plan.name, plan.description)
    Console(highlight=False).print(table)


@app.command()
def show(
    plan: str = typer.Argument(..., help="Name of a plan, or path of a plan file."),
    experiment: str | None = typer.Option(
        None, "--experiment", "-e", help="Use the row length and batch size that this experiment would train with."
    ),
    tokens_per_second: float | None = typer.Option(
        None, min=0.001, help="Speed for the time; otherwise that of the experiment's newest run here."
    ),
    packing: str = typer.Option("stream", help="How documents fill rows: stream, document or pad."),
    json: bool = typer.Option(False, "--json", help="Print one object: the plan, its datasets and its stages."),
) -> None:
    """Print the stages of a plan with the tokens, samples, steps, time and disk of each.

    Prepared datasets are counted. For others the figures are estimates, marked with ~, from the size of their files or
    from what the plan says to expect.
    """
    from lmplay.data.estimate import estimate_dataset, estimate_stage
    from lmplay.data.rows.diet import check_rows

    found = load_plan(plan)
    check_rows(packing, 1)
    sizes = _sizes(found, experiment)
    speed, speed_from = _speed(experiment, tokens_per_second)
    used = [name for name in found.datasets if any(name in stage.datasets for stage in found.stages)]
    datasets = [estimate_dataset(found, name) for name in used]
    modes = [stage.packing or cast(PackingMode, packing) for stage in found.stages]
    stages = [
        estimate_stage(
            found,
            index,
            sequence_length=size.sequence_length,
            batch_size=size.batch_size,
            packing=mode,
            tokens_per_second=speed,
        )
        for index, (size, mode) in enumerate(zip(sizes, modes, strict=True))
    ]
    if json:
        answer = {
            **_plan_json(found),
            "experiment": experiment,
            "tokens_per_second": speed,
            "datasets": [asdict(dataset) for dataset in datasets],
            "stages": [
                {**asdict(stage), **asdict(size), "packing": mode, "datasets": asked.datasets, "train": asked.train}
                for stage, size, mode, asked in zip(stages, sizes, modes, found.stages, strict=True)
            ],
        }
        typer.echo(to_json(answer, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{found.name}[/]  {found.description}\n")
    console.print(_dataset_table(found, datasets))
    console.print()
    console.print(_stage_table(found, stages, sizes, modes))
    console.print(_words_on_speed(experiment, speed, speed_from), style="dim", markup=False)


@dataclass(frozen=True)
class _Sizes:
    sequence_length: int
    batch_size: int


def _sizes(plan: Plan, experiment: str | None) -> list[_Sizes]:
    """Row length and batch size of each stage, as a run would have them."""
    from lmplay.train.config import TrainConfig
    from lmplay.train.request import validated

    configs = [
        validated(TrainConfig, stage.train, where=f"stage {stage.name!r} of the plan: train") for stage in plan.stages
    ]
    if experiment is None:
        return [_Sizes(config.sequence_length or DEFAULT_SEQUENCE_LENGTH, config.batch_size) for config in configs]
    from lmplay.base.runner_list import get_runner
    from lmplay.train.request import RunRequest
    from lmplay.train.worker import length_of, stage_configs

    runner = get_runner(experiment)
    max_len = runner.model_parameters()["max_len"].default
    request = RunRequest(experiment=runner.name, plan=plan.name)
    configs = stage_configs(request, runner, plan, max_len)
    return [_Sizes(length_of(config), config.batch_size) for config in configs]


def _speed(experiment: str | None, typed: float | None) -> tuple[float | None, str]:
    """(tokens a second, where that comes from)."""
    if typed is not None or experiment is None:
        return typed, "as given"
    from lmplay.runs import summarize_all

    for run in sorted(summarize_all(), key=lambda run: -(run.created or 0.0)):
        speed = run.status.fields.get("tokens_per_second")
        if run.experiment == experiment and isinstance(speed, int | float) and speed > 0:
            return float(speed), f"as in the run {run.name}"
    return None, ""


def _words_on_speed(experiment: str | None, speed: float | None, speed_from: str) -> str:
    if speed is not None:
        return f"\nTime at {format_count(speed)} tokens a second, {speed_from}."
    if experiment is None:
        return (
            "\nRow lengths and batch sizes are the usual ones where a stage says nothing; --experiment takes its own."
        )
    return f"\nNo run of {experiment} here tells its speed; give --tokens-per-second to see the time."


def _dataset_table(plan: Plan, datasets: list[DatasetEstimate]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("dataset", no_wrap=True)
    table.add_column("source")
    for head in ("tokens", "disk"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for dataset in datasets:
        spec = plan.datasets[dataset.name]
        source = spec.args.get("path") or spec.args.get("name") or spec.args.get("data_files") or spec.args
        mark = "" if dataset.prepared else "~"
        table.add_row(
            dataset.name,
            f"{spec.source}: {source}",
            _marked(mark, format_count(dataset.tokens)),
            _marked(mark, format_bytes(dataset.disk)),
            "prepared" if dataset.prepared else "not prepared",
        )
    return table


def _stage_table(plan: Plan, stages: list[StageEstimate], sizes: list[_Sizes], modes: list[PackingMode]) -> Table:
    from lmplay.data.estimate import total_of

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column("datasets")
    for head in ("tokens", "samples", "steps", "time", "disk"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("rows")
    table.add_column("changes")
    for stage, size, mode, asked in zip(stages, sizes, modes, plan.stages, strict=True):
        shares = sum(asked.datasets.values())
        diet = ", ".join(f"{name} {share / shares:.0%}" for name, share in asked.datasets.items())
        filled = "" if stage.fill is None else f", {stage.fill:.1%} full"
        changes = {key: value for key, value in asked.train.items() if key not in ("sequence_length", "batch_size")}
        table.add_row(
            stage.name,
            diet,
            *_figures(stage),
            f"{size.batch_size} x {size.sequence_length} {mode}{filled}",
            ", ".join(f"{key}={value}" for key, value in changes.items()),
        )
    if len(stages) > 1:
        table.add_row("all", "", *_figures(total_of(stages)), "", "", style="bold")
    return table


def _figures(stage: StageEstimate) -> tuple[str, ...]:
    mark = "" if stage.exact else "~"
    return (
        _marked(mark, format_count(stage.tokens)),
        _marked(mark, format_count(stage.rows)),
        _marked(mark, format_count(stage.steps)),
        _marked(mark, format_seconds(stage.seconds)),
        _marked(mark, format_bytes(stage.disk)),
    )


def _marked(mark: str, text: str) -> str:
    return text if text == "-" else mark + text


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "plan": plan.name,
        "name": plan.name,
        "description": plan.description,
        "seed": plan.seed,
        "datasets": list(plan.datasets),
        "stages": [stage.name for stage in plan.stages],
    }
