"""`lmplay export` and `lmplay import`: checkpoints to and from Hugging Face's transformers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from lmplay.utils.errors import WrongUsageError
from lmplay.utils.figures import format_count
from lmplay.utils.files import to_json


def register(app: typer.Typer) -> None:
    app.command("export")(export_command)
    app.command("import")(import_command)


def export_command(
    checkpoint: str = typer.Argument(
        help="A run (its newest checkpoint, or RUN@best, RUN@STEP), or the folder of a checkpoint."
    ),
    folder: Path = typer.Argument(help="Where to write; made if need be."),
    json: bool = typer.Option(False, "--json", help="Print one object: folder, difference, left_out."),
) -> None:
    """Write a GPT-2-like checkpoint as a folder for transformers, tokenizer and all.

    The model is first held against GPT-2 with the same weights: one that computes something else is refused.
    """
    from lmplay.runs import resolve_checkpoint

    source = resolve_checkpoint(checkpoint)
    _refuse_taken(folder)

    from lmplay.base.model_files import load_model
    from lmplay.interop.huggingface.exporting import export_gpt2

    exported = export_gpt2(load_model(source), folder)
    if json:
        answer = {"folder": str(folder), "difference": exported.difference, "left_out": list(exported.left_out)}
        typer.echo(to_json(answer))
        return
    typer.echo(f"{folder}: {source} as GPT-2, logits equal to {exported.difference:.1g}")
    if exported.left_out:
        typer.echo(f"left out, as the logits do not depend on it: {', '.join(exported.left_out[:6])}")
        if len(exported.left_out) > 6:
            typer.echo(f"and {len(exported.left_out) - 6} more")
    typer.echo(f'In Python: transformers.pipeline("text-generation", model="{folder}")')


def import_command(
    source: Path = typer.Argument(help="Folder of a GPT-2 that transformers saved: config.json and weights."),
    folder: Path = typer.Argument(help="Where to write the checkpoint; made if need be."),
    json: bool = typer.Option(False, "--json", help="Print one object: folder, experiment, parameters, settings."),
) -> None:
    """Make a checkpoint of a local GPT-2 folder, to generate from, to chat with, or to train on from."""
    _refuse_taken(folder)

    from lmplay.interop.huggingface.importing import import_gpt2

    imported = import_gpt2(source.expanduser(), folder)
    if json:
        typer.echo(to_json({**asdict(imported), "folder": str(folder)}))
        return
    typer.echo(f"{folder}: {imported.experiment}, {format_count(imported.parameters)} parameters. Next:")
    typer.echo(f"  lmplay chat {folder}")
    sets = "".join(f" --set model.{name}={value}" for name, value in imported.settings.items())
    typer.echo(f"  lmplay run {imported.experiment} --initial-model {folder}{sets}")


def _refuse_taken(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WrongUsageError(f"{folder} is there already and not empty; choose another folder")
