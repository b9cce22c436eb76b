"""`lmplay settings`: every key of --set, --config and the launch form, with its default, limits and description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import typer

from lmplay.utils.files import to_json

_BOUNDS = {"ge": "minimum", "gt": "above", "le": "maximum", "lt": "below"}


def register(app: typer.Typer) -> None:
    app.command("settings")(settings_command)


def settings_command(
    experiment: str | None = typer.Argument(None, help="Also the model's own keys of this experiment, and its preset."),
    json: bool = typer.Option(False, "--json", help="Print a list of objects: key, default, description, limits."),
) -> None:
    """List what can be set for a run: keys as --set and a config file take them."""
    rows = [*_settings(), *(_model_settings(experiment) if experiment is not None else ())]
    if json:
        typer.echo(to_json(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("key", "default", "description"):
        table.add_column(name, no_wrap=name == "key", overflow="fold")
    for row in rows:
        table.add_row(row["key"], "" if row["default"] is None else str(row["default"]), _told(row))
    Console(highlight=False).print(table)


def _settings() -> Iterator[dict[str, Any]]:
    from lmplay.train.config import DataConfig, Limits, TrainConfig

    for table, settings in (("train", TrainConfig), ("data", DataConfig), ("limits", Limits)):
        for name, field in settings.model_fields.items():
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            row = {
                "key": f"{table}.{name}",
                "default": list(field.default) if isinstance(field.default, tuple) else field.default,
                "description": field.description or "",
                "choices": list(choices),
                **dict.fromkeys(_BOUNDS.values()),
            }
            for limit in field.metadata:
                row |= {row_key: getattr(limit, key) for key, row_key in _BOUNDS.items() if hasattr(limit, key)}
            yield row


def _model_settings(experiment: str) -> Iterator[dict[str, Any]]:
    from lmplay.base.runner_list import get_runner

    runner = get_runner(experiment)
    preset: Mapping[str, Any] = runner.train_preset
    for name, parameter in runner.model_parameters().items():
        default = None if parameter.default is parameter.empty else parameter.default
        yield {"key": f"model.{name}", "default": default, "description": "", "choices": []}
    for name, value in preset.items():
        yield {"key": f"train.{name}", "default": value, "description": "as this experiment presets it", "choices": []}


def _told(row: Mapping[str, Any]) -> str:
    """The description, and the limits that the default doesn't tell."""
    limits = ", ".join(str(choice) for choice in row["choices"])
    return f"{row['description']} ({limits})" if limits and limits not in row["description"] else row["description"]
