"""`lmplay run`: train an experiment, or go on with a run that was interrupted.

The training happens in a worker process of its own; this command starts it and watches.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer
from rich.console import Console

from lmplay.cli.launch import Asked, Prepared, prepare, start_worker, submit_worker, take_run
from lmplay.cli.watch import result, watch
from lmplay.interop.trackers import check_trackers, spawn_bridges
from lmplay.runs import read_status
from lmplay.runs.logout import logout_notice
from lmplay.train.parallel.slurm import parse_options
from lmplay.train.request import dump_config
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.files import to_json


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    experiment: str | None = typer.Argument(None, help="Name of the experiment; `lmplay list` shows them all."),
    plan: str | None = typer.Option(
        None, help="Plan by name or file: what to train on, and for how long. [default: default]"
    ),
    name: str | None = typer.Option(None, help="Name of the run. A name that exists is gone on with."),
    new: bool = typer.Option(False, "--new", help="Start anew even if the same command was interrupted before."),
    device: str | None = typer.Option(None, help="auto, cpu, cuda, cuda:N or mps. [default: auto]"),
    nproc: int | None = typer.Option(
        None, min=1, help="Processes on this machine that share each batch; on CUDA, one device each. [default: 1]"
    ),
    shard: bool | None = typer.Option(
        None, "--shard/--no-shard", help="With --nproc: spread model and optimizer over the processes (FSDP2)."
    ),
    amp: bool = typer.Option(False, "--amp", help="Mixed precision: bf16 where the device has it, fp16 elsewhere."),
    steps: int | None = typer.Option(None, min=0, help="End after so many optimizer updates in all."),
    samples: int | None = typer.Option(None, min=0, help="End after so many samples in all."),
    tokens: int | None = typer.Option(None, min=0, help="End after so many target tokens in all."),
    max_hours: float | None = typer.Option(
        None, help="End, saved, before so many hours of this worker are over; the same command goes on later."
    ),
    seed: int | None = typer.Option(None, help="Seed of weights, data order and dropout. [default: the plan's, or 0]"),
    batch_size: int | None = typer.Option(None, help="Samples in one update; short for train.batch_size."),
    mini_batch_size: str | None = typer.Option(
        None, help="Samples computed at once, or auto for the most that fit; short for train.mini_batch_size."
    ),
    lr: float | None = typer.Option(None, help="Peak learning rate; short for train.lr."),
    ema: float | None = typer.Option(
        None, help="Keep a moving average of the weights with this decay, as the model; short for train.ema."
    ),
    precision: str | None = typer.Option(None, help="float32, tf32, bf16 or fp16; short for train.precision."),
    loss: str | None = typer.Option(None, help="auto, plain or chunked; short for train.loss."),
    compile: bool | None = typer.Option(None, "--compile/--no-compile", help="Compile the blocks of the model."),
    sets: list[str] | None = typer.Option(
        None, "--set", metavar="KEY=VALUE", help="Any setting: model.num_blocks=2, train.schedule=cosine; repeatable."
    ),
    config: Path | None = typer.Option(None, help="TOML file with the same settings; the command line beats it."),
    dump: bool = typer.Option(False, "--dump-config", help="Print all settings as such a file, and train nothing."),
    initial_model: str | None = typer.Option(None, help="Run or checkpoint whose weights to start from."),
    allow_change: list[str] | None = typer.Option(
        None, metavar="KEY", help="Go on with a run although this setting differs from its own; repeatable."
    ),
    profile: int = typer.Option(
        0, min=0, metavar="N", help="Write a trace of N steps, after two that are left out, into the run's folder."
    ),
    force: bool = typer.Option(False, "--force", help="Accept arithmetic that this machine is very slow at."),
    track: list[str] | None = typer.Option(
        None, "--track", metavar="TRACKER", help="Also tell tensorboard, wandb or trackio; repeatable."
    ),
    launcher: str = typer.Option(
        "here", help="here; slurm: submit a job that requeues itself; none: only make the run's folder, for torchrun."
    ),
    slurm: list[str] | None = typer.Option(
        None, "--slurm", metavar="KEY=VALUE", help="For the job: partition, time, nodes, gpus, account ...; repeatable."
    ),
    detach: bool = typer.Option(False, "--detach", help="Start the worker and return; `lmplay attach` watches it."),
    json: bool = typer.Option(False, "--json", help="Print nothing but a last line of JSON: run, state, loss."),
) -> None:
    """Train EXPERIMENT under a plan; progress is shown, checkpoints are kept, ctrl+c saves.

    The run lives in a folder under $LMPLAY_RUNS (or ./runs). Interrupted in any way, the same command goes on from the
    last checkpoint.
    """
    job = job_options(launcher, slurm or ())
    asked = Asked(
        experiment=experiment,
        plan=plan,
        seed=seed,
        device=device,
        nproc=nproc,
        shard=shard,
        initial_model=initial_model,
        sets=tuple(sets or ()),
        train={
            "batch_size": batch_size,
            "mini_batch_size": size_of_pieces(mini_batch_size),
            "lr": lr,
            "ema": ema,
            "precision": precision,
            "loss": loss,
            "compile": compile,
        },
        limits={"steps": steps, "samples": samples, "tokens": tokens, "hours": max_hours},
        config=config,
        profile=profile,
        amp=amp,
        force=force,
        elsewhere=launcher != "here",
    )
    prepared = prepare(asked)
    if dump:
        typer.echo(settings_of(prepared), nl=False)
        return
    raise typer.Exit(
        start_and_watch(
            prepared,
            name=name,
            new=new,
            allow_change=allow_change or (),
            detach=detach,
            json=json,
            track=track or (),
            launcher=launcher,
            job=job,
        )
    )


def start_and_watch(
    prepared: Prepared,
    *,
    name: str | None,
    new: bool = False,
    allow_change: list[str] | tuple[str, ...] = (),
    detach: bool = False,
    json: bool = False,
    verbose: bool = False,
    track: list[str] | tuple[str, ...] = (),
    launcher: str = "here",
    job: Mapping[str, str] | None = None,
) -> int:
    """Take or create the run, start its worker and, unless detached, watch it; returns the exit status. With the
    launcher `slurm` submit its worker as a `job` with these options, with `none` leave it to others.
    """
    trackers = check_trackers(track)
    taken = take_run(prepared, name=name, new=new, allow_change=allow_change)
    console = Console(quiet=json, highlight=False, markup=False, soft_wrap=True)
    if not taken.is_new and not taken.finished:
        console.print(f"going on with {taken.path.name}, which was {taken.state} (--new starts another run)")
    if verbose:
        console.print(settings_of(prepared).rstrip())
    if launcher != "here":
        if launcher == "slurm":
            submitted = submit_worker(taken.path, prepared.request, job or {})
            console.print(f"job {submitted} trains {taken.path.name}; watch it with: lmplay attach {taken.path.name}")
        else:
            console.print(f"{taken.path.name} is ready; train it with: torchrun ... -m lmplay.train {taken.path}")
        if json:
            typer.echo(to_json(result(taken.path, read_status(taken.path))))
        return 0
    pid = start_worker(taken.path)
    spawn_bridges(taken.path, trackers)
    if detach:
        console.print(f"{taken.path.name} is training in process {pid}; watch it with: lmplay attach {taken.path.name}")
        if notice := logout_notice("lmplay run ..."):
            console.print(notice)
        return 0
    interactive = sys.stdout.isatty() and sys.stdin.isatty() and not (json or verbose)
    return watch(taken.path, json=json, interactive=interactive)


def job_options(launcher: str, slurm: Sequence[str]) -> dict[str, str]:
    """What `--slurm` says, checked."""
    if launcher not in ("here", "slurm", "none"):
        raise WrongUsageError(f"--launcher {launcher}: give here, slurm or none")
    if slurm and launcher != "slurm":
        raise WrongUsageError("--slurm says how a job is submitted: add --launcher slurm")
    return parse_options(slurm)


def size_of_pieces(text: str | None) -> int | str | None:
    """A number, or a word (`auto`) that the settings know."""
    return int(text) if text is not None and text.isdecimal() else text


def settings_of(prepared: Prepared) -> str:
    """All settings of the first stage, as TOML."""
    return dump_config(prepared.request, prepared.stage_configs()[0], model=prepared.model_settings())
