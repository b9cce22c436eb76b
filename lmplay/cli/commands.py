"""The commands of `lmplay`, each loaded when it is asked for: the help names them all and imports none.

Called by main.py. Importing every command's file takes half a second, most of it for libraries that one command needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

# Command: the file in lmplay/cli that registers it, and its line in the help.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("list", "List the experiments, broken ones too."),
    "describe": ("describe", "Layers, parameters, FLOPs and memory of one."),
    "check": ("check", "Prove that a model is sound before training it."),
    "new": ("new", "Copy an experiment under a name of its own."),
    "run": ("run", "Train an experiment, or go on with a run."),
    "attach": ("attach", "Watch a run live, from any terminal."),
    "ctl": ("ctl", "Steer a run: pause, stop, checkpoint, set ..."),
    "sweep": ("queue", "Queue a grid of runs as a group."),
    "compare": ("compare", "Compare runs at equal tokens, samples, time."),
    "plot": ("plot", "Draw runs into a picture."),
    "generate": ("generate", "Continue prompts with a trained model."),
    "chat": ("chat", "Talk to a trained model."),
    "export": ("interop", "Write a checkpoint for transformers."),
    "import": ("interop", "Make a checkpoint of a local GPT-2 folder."),
    "bench": ("bench", "Measure how fast this machine trains one."),
    "runs": ("runs", "List, filter, show, rename, clone, delete runs."),
    "queue": ("queue", "Train one run after another, unattended."),
    "settings": ("settings", "Every setting of a run, its default and limits."),
    "plans": ("plans", "List plans; what their stages cost."),
    "doctor": ("doctor", "What this machine is, and what to mend on it."),
    "data": ("data", "Prepare, show, verify, remove datasets."),
}


class LoadedWhenAsked(Mapping[str, Any]):
    """Command by name, as Typer builds it from the file that registers it."""

    def __getitem__(self, name: str) -> Any:
        module, _ = COMMANDS[name]
        registered = typer.Typer(rich_markup_mode=None)
        importlib.import_module(f"lmplay.cli.{module}").register(registered)
        return typer.main.get_group(registered).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Commands(TyperGroup):
    """The group of all commands; `--help` is written from the table alone."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LoadedWhenAsked()  # type: ignore[assignment]  # nothing is ever added to it

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002
        return list(COMMANDS)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])
