"""`lmplay bench`: how fast this machine trains an experiment, phase by phase, and with which switches it is fastest.

Each line of the table is measured by a process of its own, `python -m lmplay.train.bench`.
"""

from __future__ import annotations

import json as json_
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from lmplay.cli.model_settings import SET_HELP, model_settings
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.figures import format_bytes, format_count
from lmplay.utils.files import to_json
from lmplay.utils.huge_pages import with_huge_pages

if TYPE_CHECKING:
    from lmplay.train.bench import Trial

# More rows at once must bring that much, or fewer are recommended: they need less memory.
WORTH = 1.02
MEMORY_SHARE = 0.9
LARGEST = 64
Report = Callable[[str, int, int | None], None]


def register(app: typer.Typer) -> None:
    app.command("bench")(bench_command)


def bench_command(
    experiment: str = typer.Argument(help="Name of the experiment; `lmplay list` shows them all."),
    mini_batch_size: list[int] | None = typer.Option(
        None, min=1, help="Rows computed at once; repeatable. [default: 1, 2, 4, ... while it gets faster and fits]"
    ),
    batch_size: int = typer.Option(50, min=1, help="Samples in one update: how often the optimizer works."),
    sequence_length: int | None = typer.Option(None, min=2, help="Tokens in a sample. [default: the model's max_len]"),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:N or mps."),
    precision: list[str] | None = typer.Option(
        None, help="float32, tf32, bf16 or fp16; repeatable. [default: those this device is made for]"
    ),
    compile: bool | None = typer.Option(
        None, "--compile/--no-compile", help="Also with compiled blocks. [default: on CUDA only]"
    ),
    loss: list[str] | None = typer.Option(None, help="auto, plain or chunked; repeatable. [default: all that differ]"),
    plan: str = typer.Option("quickstart", help="Plan that the text is taken from."),
    sets: list[str] | None = typer.Option(None, "--set", metavar="KEY=VALUE", help=SET_HELP),
    seconds: float = typer.Option(5.0, min=0.0, help="How long to measure each line; at least three steps."),
    force: bool = typer.Option(False, "--force", help="Also measure arithmetic that this machine is very slow at."),
    json: bool = typer.Option(False, "--json", help="Print one object: trials, recommendation."),
) -> None:
    """Measure how fast this machine trains EXPERIMENT: tokens a second, share of the matrix peak, memory, phases.

    First the number of rows at once, then one switch after the other; what is faster is kept for the next lines. Of
    lines within two percent of the fastest, the one that needs least memory is recommended.
    """
    from lmplay.base.runner_list import get_runner
    from lmplay.checks.estimates import build_skeleton, estimate_flops
    from lmplay.checks.estimates.memory import free_memory, largest_mini_batch
    from lmplay.cli.progress import data_progress
    from lmplay.train.bench import Trial
    from lmplay.train.device import choose_device

    runner = get_runner(experiment)
    model_keys = model_settings(sets or ())
    chosen = choose_device(device)
    model = build_skeleton(runner, **model_keys)
    length = sequence_length or model.max_len
    if length > model.max_len:
        raise WrongUsageError(
            f"--sequence-length {length} is more than the model's max_len of {model.max_len}; "
            f"add --set model.max_len={length}"
        )
    switches = Switches(
        precisions=tuple(precision) if precision else precisions_of(chosen),
        losses=tuple(loss) if loss else ("auto", "plain"),
        compile=(chosen.type == "cuda") if compile is None else compile,
    )
    check_switches(switches, chosen, force=force)
    first = Trial(
        experiment=runner.name,
        model=model_keys,
        train=dict(runner.train_preset),
        plan=plan,
        device=str(chosen),
        sequence_length=length,
        precision=switches.precisions[0],
        loss=switches.losses[0],
        seconds=seconds,
    )
    flops = estimate_flops(model, length).training
    sizes = sorted(set(mini_batch_size or ()))
    fits = largest_mini_batch(model, int(MEMORY_SHARE * free_memory(chosen)), device_type=chosen.type)
    limit = min(batch_size, LARGEST, LARGEST if fits is None else max(1, fits * model.max_len // length))
    del model
    with data_progress() as report:
        prepare(plan, length, report)
        course = Course(batch_size, flops, report)
        best = course.sizes(first, sizes or doublings(limit), adaptive=not sizes)
        if best is not None:
            course.switches(best, switches)
    recommended = course.recommended()
    facts = {
        "experiment": runner.name,
        "device": str(chosen),
        "threads": next((line.result["threads"] for line in course.lines if not line.error), None),
        "sequence_length": length,
        "batch_size": batch_size,
        "flops_per_token": flops,
        "trials": [line.to_dict() for line in course.lines],
        "recommendation": None if recommended is None else {**recommended.to_dict(), "command": command(recommended)},
    }
    if json:
        typer.echo(to_json(facts, indent=2))
    else:
        show(facts, course.lines, recommended)
    if recommended is None:
        raise LMPlayError(f"nothing could be measured: {course.lines[-1].error}")


@dataclass(frozen=True)
class Switches:
    """What is tried beside the number of rows; the first of each is what the sizes are measured with."""

    precisions: tuple[str, ...]
    losses: tuple[str, ...]
    compile: bool


def precisions_of(device: Any) -> tuple[str, ...]:
    """Arithmetic that `device` has units for."""
    from lmplay.train.device import amp_precision, cpu_has_bf16_units

    if device.type == "cuda":
        return ("float32", "tf32", amp_precision(device))
    if device.type == "cpu":
        return ("float32", "bf16") if cpu_has_bf16_units() else ("float32",)
    return ("float32", "fp16")


def check_switches(switches: Switches, device: Any, *, force: bool) -> None:
    from lmplay.train.config import TrainConfig
    from lmplay.train.device import check_precision
    from lmplay.train.request import validated

    for name in switches.precisions:
        config = validated(TrainConfig, {"precision": name}, where="train")
        check_precision(config.precision, device, force=force)
    for name in switches.losses:
        validated(TrainConfig, {"loss": name}, where="train")


def doublings(limit: int) -> list[int]:
    sizes = [1]
    while sizes[-1] * 2 <= limit:
        sizes.append(sizes[-1] * 2)
    return sizes


def prepare(plan: str, length: int, report: Report) -> None:
    """Have the text's tokens ready, which the measuring processes then share."""
    from lmplay.data import open_stage
    from lmplay.plans import load_plan

    open_stage(load_plan(plan), 0, sequence_length=length, progress=report)


@dataclass(frozen=True)
class Line:
    """A trial and what came of it."""

    trial: Trial
    result: dict[str, Any]
    batch_size: int
    flops_per_token: int

    @property
    def error(self) -> str | None:
        found: str | None = self.result.get("error")
        return found

    @property
    def seconds(self) -> dict[str, float]:
        """Of one update of `batch_size` samples, by phase: all but the optimizer work once for each piece."""
        pieces = self.batch_size / self.trial.mini_batch_size
        return {name: value * (1 if name == "optimizer" else pieces) for name, value in self.result["seconds"].items()}

    @property
    def tokens_per_second(self) -> float:
        return self.batch_size * self.trial.sequence_length / sum(self.seconds.values())

    @property
    def mfu(self) -> float:
        """Share of the speed of plain matrix products, measured in between, at which the model's own are done."""
        share: float = self.flops_per_token * self.tokens_per_second / self.result["matrix_flops"]
        return share

    def to_dict(self) -> dict[str, Any]:
        names = ("mini_batch_size", "precision", "loss", "compile")
        asked = {name: getattr(self.trial, name) for name in names}
        if self.error:
            return {**asked, "error": self.error}
        measured = {"tokens_per_second": self.tokens_per_second, "mfu": self.mfu, "seconds": self.seconds}
        facts = {name: self.result[name] for name in ("memory", "matrix_flops", "steps")}
        return {**asked, "error": None, **measured, **facts}


class Course:
    """The lines measured so far."""

    def __init__(self, batch_size: int, flops_per_token: int, report: Report) -> None:
        self.lines: list[Line] = []
        self._batch_size = batch_size
        self._flops = flops_per_token
        self._report = report

    def measure(self, trial: Trial) -> Line:
        self._report("measuring", len(self.lines), None)
        line = Line(trial, run_trial(trial), self._batch_size, self._flops)
        self.lines.append(line)
        return line

    def sizes(self, trial: Trial, sizes: Iterable[int], *, adaptive: bool) -> Line | None:
        """Measure each size; `adaptive` ends where twice as many rows bring nothing more. -> the best."""
        best: Line | None = None
        for size in sizes:
            line = self.measure(trial.model_copy(update={"mini_batch_size": size}))
            gained = not line.error and (best is None or line.tokens_per_second > WORTH * best.tokens_per_second)
            if gained:
                best = line
            elif adaptive:
                break
        return best

    def switches(self, best: Line, switches: Switches) -> None:
        for change in changes(best, switches):
            line = self.measure(best.trial.model_copy(update=change))
            if not line.error and line.tokens_per_second > best.tokens_per_second:
                best = line

    def recommended(self) -> Line | None:
        """The fastest line; of those that are about as fast, the one that needs the least memory."""
        whole = [line for line in self.lines if not line.error]
        if not whole:
            return None
        fastest = max(line.tokens_per_second for line in whole)
        return min(
            (line for line in whole if line.tokens_per_second * WORTH >= fastest),
            key=lambda line: line.result["memory"],
        )


def changes(best: Line, switches: Switches) -> Iterator[dict[str, Any]]:
    """One switch after the other, without those that change nothing."""
    for loss in switches.losses[1:]:
        if loss != "plain" or best.result["chunked"]:
            yield {"loss": loss}
    for precision in switches.precisions[1:]:
        yield {"precision": precision}
    if switches.compile:
        yield {"compile": True}


def run_trial(trial: Trial) -> dict[str, Any]:
    """Measure in a process of its own; what went wrong there is an `error`."""
    asked = [sys.executable, "-m", "lmplay.train.bench", trial.model_dump_json()]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, env=with_huge_pages(os.environ))
    if done.returncode < 0:
        return {"error": f"killed by signal {-done.returncode}, most likely for its memory"}
    if done.returncode:
        last = done.stderr.strip().splitlines()
        return {"error": last[-1] if last else f"exit status {done.returncode}"}
    result: dict[str, Any] = json_.loads(done.stdout.splitlines()[-1])
    return result


def command(line: Line) -> str:
    """What to type for a run with these switches."""
    trial = line.trial
    parts = ["lmplay", "run", trial.experiment, "--mini-batch-size", str(trial.mini_batch_size)]
    parts += ["--batch-size", str(line.batch_size), "--precision", trial.precision, "--loss", trial.loss]
    parts += ["--compile"] if trial.compile else []
    parts += [f"--set=train.sequence_length={trial.sequence_length}"]
    parts += [f"--set=model.{name}={to_json(value)}" for name, value in trial.model.items()]
    return shlex.join(parts)


def switches_of(trial: Trial) -> str:
    """In a word or two, what differs from the plainest settings."""
    return " ".join(
        [trial.precision, *([f"{trial.loss} loss"] * (trial.loss != "auto")), *["compiled"] * trial.compile]
    )


def show(facts: dict[str, Any], lines: list[Line], recommended: Line | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    threads = f", {facts['threads']} threads" if facts["device"] == "cpu" and facts["threads"] else ""
    console.print(
        f"{facts['experiment']} on {facts['device']}{threads}: rows of {facts['sequence_length']} tokens, "
        f"{facts['batch_size']} in an update, {format_count(facts['flops_per_token'])} FLOPs a token"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("rows", justify="right")
    table.add_column("switches", no_wrap=True, overflow="fold")
    for column in ("tokens/s", "peak", "memory", "data", "fwd", "bwd", "update"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        trial = line.trial
        asked = [str(trial.mini_batch_size), switches_of(trial)]
        if line.error:
            table.add_row(*asked, line.error)
            continue
        whole = sum(line.seconds.values())
        shares = [f"{line.seconds[name] / whole:.0%}" for name in ("data", "forward", "backward", "optimizer")]
        figures = [format_count(line.tokens_per_second), f"{line.mfu:.0%}", format_bytes(line.result["memory"])]
        table.add_row(*asked, *figures, *shares, style="bold green" if line is recommended else None)
    console.print(table)
    console.print(
        "peak: share of the speed of matrix products. fwd with the chunked loss includes much of its gradient.",
        style="dim",
    )
    if recommended is not None:
        console.print(f"fastest that fits: {command(recommended)}", soft_wrap=True)
