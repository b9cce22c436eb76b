"""`lmplay check`: is a model sound, before an hour of training is spent on it?"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from lmplay.cli.model_settings import SET_HELP, model_settings
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from lmplay.checks import CheckResult, Gradient, Report, Subject

BAR_WIDTH = 40


def register(app: typer.Typer) -> None:
    app.command("check")(check_command)


def check_command(
    experiment: str = typer.Argument(help="Name of the experiment; `lmplay list` shows them all."),
    tiny: bool = typer.Option(False, "--tiny", help="Scale the model down: 2 blocks, 64 wide, 64 tokens, in seconds."),
    sets: list[str] | None = typer.Option(None, "--set", metavar="KEY=VALUE", help=SET_HELP),
    device: str = typer.Option("cpu", help="auto, cpu, cuda, cuda:N or mps."),
    only: list[str] | None = typer.Option(None, "--only", metavar="CHECK", help="Ask only this check; repeatable."),
    plan: str | None = typer.Option(None, help="Take the text from this plan's validation part. [default: built-in]"),
    inductor: bool = typer.Option(False, "--inductor", help="Let the check of compiling generate code: a minute more."),
    seed: int = typer.Option(0, help="Seed of weights and dropout."),
    gradients: bool = typer.Option(False, "--gradients", help="Also print a line for each parameter."),
    json: bool = typer.Option(False, "--json", help="Print one object: ok, checks, gradients."),
    stream: bool = typer.Option(
        False, "--stream", help="With --json: first each result on a line of its own, the moment it is known."
    ),
) -> None:
    """Check EXPERIMENT on a few rows of real text: gradients, causality, cache, and eight more.

    Each check says what it measured, and a failed one also what is likely wrong. Exit status 1 when one failed.
    """
    from lmplay.base.runner_list import get_runner
    from lmplay.checks import CHECKS, Report, Subject, run_checks
    from lmplay.train.device import choose_device

    if stream and not json:
        raise WrongUsageError("--stream goes with --json")
    runner = get_runner(experiment)
    subject = Subject(
        runner,
        settings=model_settings(sets or ()),
        tiny=tiny,
        device=choose_device(device),
        seed=seed,
    )
    if plan is not None:
        _look_at_text_of(plan, subject)
    report = Report(experiment)
    results = run_checks(subject, only or None, compile_backend="inductor" if inductor else "aot_eager")
    if json:
        for result in aside(results):
            report.checks.append(result)
            if stream:
                typer.echo(to_json(result.to_dict()))
        typer.echo(to_json(report.to_dict(), indent=None if stream else 2))
    else:
        _show(report, results, subject, names=only or list(CHECKS), all_gradients=gradients)
    raise typer.Exit(0 if report.ok else 1)


def aside(results: Iterator[CheckResult]) -> Iterator[CheckResult]:
    """The same results; what a model prints on the way goes to standard error, not between them."""
    while True:
        with contextlib.redirect_stdout(sys.stderr):
            result = next(results, None)
        if result is None:
            return
        yield result


def _look_at_text_of(plan: str, subject: Subject) -> None:
    """Take the text of the checks from the validation part of a plan."""
    import torch

    from lmplay.checks.subject import ROWS
    from lmplay.data import open_validation
    from lmplay.plans import load_plan

    validation = open_validation(load_plan(plan), sequence_length=subject.model.max_len + 1)
    if validation.num_rows < ROWS:
        raise LMPlayError(f"the validation part of {plan} has {validation.num_rows} rows; the checks need {ROWS}")
    subject.look_at(torch.from_numpy(validation.rows(0, ROWS).tokens))


def _show(
    report: Report, results: Iterator[CheckResult], subject: Subject, *, names: list[str], all_gradients: bool
) -> None:
    """The table, filled in while the checks run."""
    from rich.console import Console

    console = Console()
    console.print(f"[bold]{report.experiment}[/bold]  {_settings(subject)}", highlight=False)
    with console.status(f"asking about {names[0]}") as status:
        for following, result in zip([*names[1:], None], results, strict=False):
            report.checks.append(result)
            console.print(_row(result))
            status.update(f"asking about {following}" if following else "")
    if report.gradients:
        console.print()
        console.print(_bars(report.gradients))
    if all_gradients:
        console.print(_gradient_table(report.gradients))
    console.print()
    _summary(console, report)


def _settings(subject: Subject) -> str:
    return ", ".join(f"{name}={value}" for name, value in subject.settings.items())


def _row(result: CheckResult) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    mark, style = ("skip", "dim") if result.skipped else (("ok", "green") if result.ok else ("FAIL", "bold red"))
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(width=4)
    grid.add_column(width=18)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_column(width=7, justify="right")
    took = "" if result.skipped else f"{result.seconds:.1f} s"
    grid.add_row(Text(mark, style), result.name, Text(result.evidence), Text(took, "dim"))
    if result.cause:
        grid.add_row(
            "", "", Text(f"{'' if result.skipped else 'likely: '}{result.cause}", "dim" if result.skipped else "")
        )
    return grid


def _bars(gradients: tuple[Gradient, ...]) -> RenderableType:
    """The gradient norm of each part of the model, on a logarithmic scale over four decades."""
    import math

    from rich.table import Table

    from lmplay.checks.gradients import norms_by_block

    norms = {name: norm for name, norm in norms_by_block(gradients).items() if math.isfinite(norm)}
    top = max(norms.values(), default=0.0)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row("[dim]gradient norm[/dim]", "[dim]logarithmic, four decades[/dim]")
    for name, norm in norms.items():
        share = 1 + math.log10(norm / top) / 4 if norm > 0 and top > 0 else 0.0
        grid.add_row(name, f"{'█' * max(0, round(share * BAR_WIDTH))} {norm:.2e}")
    return grid


def _gradient_table(gradients: tuple[Gradient, ...]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("parameter", "shape", "gradient", "norm", "norm / weights"):
        table.add_column(name, justify="left" if name in ("parameter", "shape", "gradient") else "right")
    for row in gradients:
        table.add_row(
            row.name,
            "x".join(map(str, row.shape)),
            f"{row.status}, frozen" if row.frozen else row.status,
            "" if row.grad_norm is None else f"{row.grad_norm:.2e}",
            "" if row.ratio is None else f"{row.ratio:.2e}",
        )
    return table


def _summary(console: Console, report: Report) -> None:
    failed = [result.name for result in report.checks if not result.ok]
    skipped = [result.name for result in report.checks if result.ok and result.skipped]
    passed = len(report.checks) - len(failed) - len(skipped)
    text = f"{passed} passed"
    text += f", {len(skipped)} skipped ({', '.join(skipped)})" if skipped else ""
    text += f", {len(failed)} failed: {', '.join(failed)}" if failed else ""
    text += f" in {sum(result.seconds for result in report.checks):.0f} s"
    console.print(f"[{'bold red' if failed else 'green'}]{text}[/]", highlight=False)
