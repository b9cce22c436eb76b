"""`lmplay describe`: what an experiment is and what it costs, without building its weights."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from lmplay.cli.model_settings import SET_HELP, model_settings
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.figures import format_bytes, format_count
from lmplay.utils.files import to_json

if TYPE_CHECKING:
    from lmplay.checks.description import Description
    from lmplay.checks.estimates import Layer

DEVICES = ("cpu", "cuda", "mps")


def register(app: typer.Typer) -> None:
    app.command("describe")(describe_command)


def describe_command(
    experiment: str = typer.Argument(help="Name of the experiment; `lmplay list` shows them all."),
    sets: list[str] | None = typer.Option(None, "--set", metavar="KEY=VALUE", help=SET_HELP),
    mini_batch_size: int = typer.Option(4, min=1, help="Rows computed at once, for the estimate of memory."),
    depth: int = typer.Option(3, min=0, help="How deep the table of layers goes; alike neighbours share a line."),
    device: str = typer.Option("cpu", help="Kind of device that the estimate of memory is for: cpu, cuda or mps."),
    json: bool = typer.Option(False, "--json", help="Print one object, with every layer."),
) -> None:
    """Describe EXPERIMENT: its layers, parameters, FLOPs a token and the memory that training it takes."""
    description = _describe(experiment, model_settings(sets or ()), mini_batch_size, device)
    if json:
        typer.echo(to_json(description.to_dict(), indent=2))
    else:
        _print(description, depth)


def print_description(experiment: str, settings: Mapping[str, Any]) -> None:
    """What `lmplay describe` prints, for an experiment with these settings of its model."""
    _print(_describe(experiment, settings, mini_batch_size=4, device="cpu"), depth=3)


def _describe(experiment: str, settings: Mapping[str, Any], mini_batch_size: int, device: str) -> Description:
    from lmplay.base.runner_list import get_runner
    from lmplay.checks.description import describe

    kind = device.partition(":")[0]
    if kind not in DEVICES:
        raise WrongUsageError(f"--device {device}: the estimate of memory knows {', '.join(DEVICES)}")
    with contextlib.redirect_stdout(sys.stderr):  # what a model prints is no part of the answer
        return describe(get_runner(experiment), settings=settings, mini_batch_size=mini_batch_size, device_type=kind)


def _print(description: Description, depth: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"[bold]{description.name}[/bold]  {description.description}", highlight=False)
    settings = ", ".join(f"{name}={value}" for name, value in description.settings.items())
    console.print(f"{description.model_class.rpartition('.')[2]}({settings})\n", highlight=False, markup=False)

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("layer", overflow="fold")
    table.add_column("output", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("FLOPs a token", justify="right", no_wrap=True)
    for layer, times in merged(description.layers, depth):
        label = f"{'  ' * layer.depth}{layer.name.rpartition('.')[2] or layer.type}"
        label += f" ({layer.type})" if layer.depth else ""
        table.add_row(
            f"{label} x {times}" if times > 1 else label,
            "x".join(map(str, layer.output_size)),
            f"{layer.parameters:,}" if layer.parameters else "",
            format_count(layer.flops_per_token) if layer.flops_per_token else "",
        )
    console.print(table)

    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(description):
        facts.add_row(f"[dim]{name}[/dim]", value)
    console.print()
    console.print(facts)


def _facts(description: Description) -> Iterator[tuple[str, str]]:
    parameters, flops, memory = description.parameters, description.flops, description.memory
    yield "parameters", f"{parameters.total:,} ({parameters.non_embedding:,} without embeddings)"
    if parameters.trainable != parameters.total:
        yield "trainable", f"{parameters.trainable:,}"
    yield "by part", ", ".join(f"{part} {format_count(count)}" for part, count in parameters.by_part.items())
    yield (
        "FLOPs a token",
        f"{format_count(flops.forward)} forward, {format_count(flops.training)} in training, at "
        f"{flops.sequence_length} tokens ({flops.method})",
    )
    yield (
        "memory",
        f"{format_bytes(memory.total)} to train {memory.mini_batch_size} rows of {memory.sequence_length} tokens at "
        f"once: weights {format_bytes(memory.weights)}, gradients {format_bytes(memory.gradients)}, AdamW "
        f"{format_bytes(memory.optimizer)}, activations {format_bytes(memory.activations)}",
    )
    if not description.causal:
        yield "causal", "no: its logits may depend on later tokens, so it is not asked to generate"


def merged(layers: list[Layer], depth: int) -> Iterator[tuple[Layer, int]]:
    """Layers down to `depth`; neighbours of one kind with all that is below them stand once, with their number."""
    position = 0
    while position < len(layers):
        size = _size(layers, position)
        times = 1
        while _alike(layers, position, position + times * size, size):
            times += 1
        layer = layers[position]
        if layer.depth <= depth:
            yield layer, times
            yield from merged(layers[position + 1 : position + size], depth)
        position += times * size


def _size(layers: list[Layer], position: int) -> int:
    """How many rows the layer at `position` takes together with everything below it."""
    end = position + 1
    while end < len(layers) and layers[end].depth > layers[position].depth:
        end += 1
    return end - position


def _alike(layers: list[Layer], first: int, second: int, size: int) -> bool:
    def kinds(start: int) -> list[tuple[str, int, int, int]]:
        part = layers[start : start + size]
        return [(layer.type, layer.depth, layer.parameters, layer.flops_per_token) for layer in part]

    return second + size <= len(layers) and kinds(first) == kinds(second) and _size(layers, second) == size
