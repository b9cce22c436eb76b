"""`lmplay plans`: the plans there are, and what each stage of one costs before it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmplay.cli.plan_speed import Speed, expected_speed
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
        None, min=0.001, help="Speed for the time; otherwise that of the experiment's newest run here, or a guess."
    ),
    packing: str = typer.Option("stream", help="How documents fill rows: stream, document or pad."),
    json: bool = typer.Option(False, "--json", help="Print one object: the plan, its datasets and its stages."),
) -> None:
    """Print the stages of a plan with the tokens, samples, steps, time and disk of each.

    Prepared datasets are counted. For others the figures are estimates, marked with ~, from the size of their files or
    from what the plan says to expect.
    """
    from lmplay.data.estimate import estimate_dataset, estimate_stage, total_of
    from lmplay.data.rows.diet import check_rows

    found = load_plan(plan)
    check_rows(packing, 1)
    sizes = _sizes(found, experiment)
    speed = expected_speed(experiment, tokens_per_second, found)
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
            tokens_per_second=speed.tokens_per_second,
        )
        for index, (size, mode) in enumerate(zip(sizes, modes, strict=True))
    ]
    total = total_of(stages, datasets)
    if json:
        answer = {
            **_plan_json(found),
            "experiment": experiment,
            "tokens_per_second": speed.tokens_per_second,
            "speed_from": speed.source,
            "datasets": [asdict(dataset) for dataset in datasets],
            "stages": [
                {**asdict(stage), **asdict(size), "packing": mode, "datasets": asked.datasets, "train": asked.train}
                for stage, size, mode, asked in zip(stages, sizes, modes, found.stages, strict=True)
            ],
            "total": asdict(total),
        }
        typer.echo(to_json(answer, indent=2))
        return
    console = Console(highlight=False)
    console.print(Text.assemble((found.name, "bold"), f"  {found.description}\n"))
    console.print(_dataset_table(found, datasets))
    console.print()
    console.print(_stage_table(stages, total))
    console.print()
    console.print(_diet_table(found, stages, sizes, modes))
    console.print(f"\n{_words_on_speed(speed)}", style="dim", markup=False)


@dataclass(frozen=True)
class _Sizes:
    sequence_length: int
    batch_size: int


def _sizes(plan: Plan, experiment: str | None) -> list[_Sizes]:
    """Row length and batch size of each stage, as a run would have them."""
    from lmplay.train.config import TrainConfig
    from lmplay.train.request import RunRequest, check_stage_settings

    check_stage_settings(plan)
    if experiment is None:
        configs = [TrainConfig.model_validate(stage.train) for stage in plan.stages]
        return [_Sizes(config.sequence_length or DEFAULT_SEQUENCE_LENGTH, config.batch_size) for config in configs]
    from lmplay.base.runner_list import get_runner
    from lmplay.train.worker import length_of, stage_configs

    runner = get_runner(experiment)
    max_len = runner.model_parameters()["max_len"].default
    request = RunRequest(experiment=runner.name, plan=plan.name)
    configs = stage_configs(request, runner, plan, max_len)
    return [_Sizes(length_of(config), config.batch_size) for config in configs]


def _words_on_speed(speed: Speed) -> str:
    if speed.tokens_per_second is None:
        return (
            "Row lengths and batch sizes are the usual ones where a stage says nothing; --experiment takes its own, "
            "and tells the time."
        )
    return f"Time at {format_count(speed.tokens_per_second)} tokens a second, {speed.source}."


def _dataset_table(plan: Plan, datasets: list[DatasetEstimate]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("dataset", no_wrap=True)
    table.add_column("source")
    for head in ("tokens", "disk"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for dataset in datasets:
        spec = plan.datasets[dataset.name]
        source = _where(spec.args)
        mark = "" if dataset.prepared else "~"
        table.add_row(
            dataset.name,
            f"{spec.source}: {source}",
            _marked(mark, format_count(dataset.tokens)),
            _marked(mark, format_bytes(dataset.disk)),
            "prepared" if dataset.prepared else "not prepared",
        )
    return table


def _where(args: Mapping[str, Any]) -> str:
    """What a source reads, in a word: a dataset with its configuration, files, a callable."""
    named = " ".join(str(args[key]) for key in ("path", "name") if key in args)
    return named or str(next((args[key] for key in ("data_files", "data_dir", "entry_point") if key in args), args))


def _stage_table(stages: list[StageEstimate], total: StageEstimate) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True)
    for head in ("tokens", "samples", "steps", "time", "disk"):
        table.add_column(head, justify="right", no_wrap=True)
    for stage in stages:
        table.add_row(stage.name, *_figures(stage))
    if len(stages) > 1:
        table.add_row("all", *_figures(total), style="bold")
    return table


def _diet_table(plan: Plan, stages: list[StageEstimate], sizes: list[_Sizes], modes: list[PackingMode]) -> Table:
    """What each stage is made of, and what it changes of the training."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for stage, size, mode, asked in zip(stages, sizes, modes, plan.stages, strict=True):
        shares = sum(asked.datasets.values())
        diet = ", ".join(f"{name} {share / shares:.0%}" for name, share in asked.datasets.items())
        full = "" if stage.fill is None else f", {stage.fill:.1%} full"
        rows = f"{size.batch_size} rows of {size.sequence_length} tokens a step, {mode}{full}"
        changes = {key: value for key, value in asked.train.items() if key not in ("sequence_length", "batch_size")}
        settings = ", ".join(f"{key}={value}" for key, value in changes.items())
        table.add_row(stage.name, "\n".join(filter(None, (f"{diet}; {rows}", settings))))
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
