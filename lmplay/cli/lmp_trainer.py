"""`lmp_trainer`: the flags of the reference document on the same engine as `lmplay run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import typer

from lmplay.cli.errors import run_app
from lmplay.cli.launch import Asked, Prepared, prepare, set_history_aside
from lmplay.utils.errors import WrongUsageError

app = typer.Typer(
    name="lmp_trainer",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def train(
    exp: str = typer.Option("gpt2ish", "--exp", help="Name of the experiment, or `list` for all of them."),
    describe: bool = typer.Option(False, "--describe", help="Print the model's layers, parameters and cost, and stop."),
    check_grads: bool = typer.Option(
        False, "--check-grads", help="Make one real step, name the parameters that got no gradient, and stop."
    ),
    training_plan: str | None = typer.Option(None, "--training-plan", "--plan", help="Plan by name or file."),
    model: str | None = typer.Option(None, "--model", help="Run to go on with, or to create under this name."),
    initial_model: str | None = typer.Option(
        None, "--initial-model", help="Run or checkpoint whose weights a new run starts from."
    ),
    reset_history: bool = typer.Option(
        False, "--reset-history", help="Keep the weights of --model, start its steps, optimizer and charts anew."
    ),
    device: str | None = typer.Option(None, "--device", help="auto, cpu, cuda, cuda:N or mps."),
    amp: bool = typer.Option(False, "--amp", help="Mixed precision: bf16 where the device has it, fp16 elsewhere."),
    batch_size: int | None = typer.Option(None, "--batch-size", help="Samples in one update."),
    mini_batch_size: str | None = typer.Option(
        None, "--mini-batch-size", help="Samples computed at once, or auto for the most that fit."
    ),
    validation_interval: int | None = typer.Option(
        None, "--validation-interval", help="Samples between two validations."
    ),
    save_interval: int | None = typer.Option(None, "--save-interval", help="Samples between two checkpoints."),
    lr: float | None = typer.Option(None, "--lr", help="Peak learning rate."),
    optimizer: str | None = typer.Option(None, "--optimizer", help="adamw, adam, adagrad, sgd, rmsprop or muon."),
    weight_decay: float | None = typer.Option(None, "--weight-decay", help="Decay of matrices."),
    grad_clip: float | None = typer.Option(None, "--grad-clip", help="Largest norm of the gradient; 0 for no limit."),
    num_blocks: int | None = typer.Option(None, "--num-blocks", help="Transformer blocks of the model."),
    embed_dim: int | None = typer.Option(None, "--embed-dim", help="Width of the model."),
    num_heads: int | None = typer.Option(None, "--num-heads", help="Attention heads of the model."),
    max_len: int | None = typer.Option(None, "--max-len", help="Longest sequence of the model."),
    steps: int | None = typer.Option(None, "--steps", min=0, help="End after so many updates in all."),
    seed: int | None = typer.Option(None, "--seed", help="Seed of weights, data order and dropout."),
    sets: list[str] | None = typer.Option(None, "--set", metavar="KEY=VALUE", help="Any other setting; repeatable."),
    config: Path | None = typer.Option(None, "--config", help="TOML file with settings."),
    force: bool = typer.Option(False, "--force", help="Accept arithmetic that this machine is very slow at."),
    verbose: bool = typer.Option(False, "--verbose", help="Print all settings first, and progress line by line."),
) -> None:
    """Train, describe or check one experiment."""
    from lmplay.cli.describe import print_description
    from lmplay.cli.list import print_list
    from lmplay.cli.run import size_of_pieces, start_and_watch

    if exp == "list":
        print_list()
        return
    plan = training_plan or ("quickstart" if describe or check_grads else None)
    asked = Asked(
        experiment=exp,
        plan=plan,
        seed=seed,
        device=device,
        initial_model=initial_model,
        sets=tuple(sets or ()),
        train={
            "batch_size": batch_size,
            "mini_batch_size": size_of_pieces(mini_batch_size),
            "validation_interval": validation_interval,
            "save_interval": save_interval,
            "lr": lr,
            "optimizer": optimizer,
            "weight_decay": weight_decay,
            "grad_clip": grad_clip,
        },
        model={"num_blocks": num_blocks, "embed_dim": embed_dim, "num_heads": num_heads, "max_len": max_len},
        limits={"steps": steps},
        config=config,
        amp=amp,
        force=force,
    )
    prepared = prepare(asked)
    if describe:
        print_description(exp, prepared.request.model)
        return
    if check_grads:
        raise typer.Exit(_check_gradients(prepared))
    if reset_history:
        if model is None:
            raise WrongUsageError("--reset-history needs --model RUN: the run whose weights are to start anew")
        prepared = set_history_aside(prepared, model)
    raise typer.Exit(start_and_watch(prepared, name=model, verbose=verbose))


def _check_gradients(prepared: Prepared) -> int:
    from lmplay.train.gradients import gradients_of_one_step

    report = gradients_of_one_step(prepared.request, prepared.plan, prepared.runner)
    for name, shape in report.without:
        typer.echo(f"no gradient: {name} {shape}")
    for name, shape in report.frozen:
        typer.echo(f"frozen: {name} {shape}")
    typer.echo(
        f"{report.trained} parameters of {prepared.runner.name} got a gradient, {len(report.without)} got none, "
        f"{len(report.frozen)} are frozen"
    )
    return 1 if report.without else 0


def main() -> NoReturn:
    sys.exit(run_app(app, "lmp_trainer", sys.argv[1:]))
