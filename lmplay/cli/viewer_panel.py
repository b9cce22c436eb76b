"""What a watched run looks like: figures kept between two looks, the panel of a terminal, the plain lines of a pipe."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lmplay.runs import RunFollower, Update, read_run_file, read_status
from lmplay.utils.figures import format_bytes, format_count, format_loss, format_seconds, sparkline

PLAIN_SECONDS = 10.0
_STATE_STYLES = {"running": "green", "done": "green", "failed": "red", "lost": "red", "paused": "yellow"}


class RunView:
    """The newest known figures of a run, renewed by `poll`."""

    def __init__(self, path: Path, follower: RunFollower) -> None:
        self.path = path
        self._follower = follower
        self.experiment = str(read_run_file(path).get("experiment", ""))
        self.train: dict[str, Any] = {}
        self.validation: dict[str, Any] = {}
        self.machine: dict[str, Any] = {}
        self.sample = ""
        self.note = ""
        """The newest thing worth a line: saved, resumed, a warning."""
        self.losses: deque[float] = deque(maxlen=2048)
        self.last_plain = -math.inf
        self.status = read_status(path)

    def poll(self) -> Update:
        update = self._follower.poll()
        self.status = update.status
        if update.restarted:
            self.losses.clear()
        for row in update.metrics:
            if row.get("kind", "train") == "train":
                self.train = row
                if isinstance(row.get("loss"), int | float):
                    self.losses.append(float(row["loss"]))
            elif row["kind"] == "validate":
                self.validation = row
        for row in update.events:
            if isinstance(row.get("sample"), str):
                self.sample = row["sample"]
            self.note = describe_event(row) or self.note
        if update.system:
            self.machine = update.system[-1]
        return update

    @property
    def fraction(self) -> float | None:
        """How much of the run is done, 0 to 1; None while the worker hasn't said how long it is."""
        done, total = self._position()
        return min(1.0, done / total) if total else None

    @property
    def seconds_left(self) -> float | None:
        """As the worker reckons it."""
        return self.status.seconds_left

    def figure(self, name: str) -> float | None:
        """The newest value of a training figure: from the rows, else from the status."""
        value = self.train.get(name, self.status.fields.get(name))
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def memory(self) -> float | None:
        """Bytes: the device's as the trainer says, else the worker's resident memory."""
        for value in (self.figure("memory"), self.machine.get("process_memory")):
            if isinstance(value, int | float):
                return float(value)
        return None

    def activity(self) -> str:
        """What the worker is at beside steps, and how far that is."""
        return self.status.activity

    def last_line(self) -> str:
        """How the run ended, or where it is."""
        status = self.status
        parts = [f"{format_count(status.step)} steps", f"{format_count(status.tokens)} tokens"]
        if status.loss is not None:
            parts.append(f"loss {format_loss(status.loss)}")
        if status.validation_loss is not None:
            parts.append(f"validation loss {format_loss(status.validation_loss)}")
        reason = f" ({status.reason})" if status.reason else ""
        return f"{self.path.name} {status.state}{reason}: {', '.join(parts)}"

    def _position(self) -> tuple[float, float]:
        """(done, total) in the first unit whose total the status names."""
        for unit in ("samples", "steps", "tokens"):
            total = self.status.fields.get(f"total_{unit}")
            if isinstance(total, int | float) and total > 0:
                done = self.status.step if unit == "steps" else getattr(self.status, unit)
                return float(self.figure("step" if unit == "steps" else unit) or done), float(total)
        return 0.0, 0.0


def describe_event(row: dict[str, Any]) -> str:
    """One line for an event that a person watching wants to know of; empty for the others."""
    kind, step = row.get("event"), row.get("step")
    at = f" at step {step:,}" if isinstance(step, int) else ""
    if kind == "stage":
        rows, fill = row.get("rows"), row.get("fill")
        diet = f": {rows:,} samples, {fill:.1%} full" if isinstance(rows, int) and isinstance(fill, float) else ""
        return f"stage {row.get('stage', '')} begins{at}{diet}"
    if kind == "stage_ended":
        return f"stage {row.get('stage', '')} ended{at}: {stage_line(row)}"
    if kind == "profiled":
        return f"profile{at}: {row.get('trace')}"
    if kind == "saved":
        return f"saved a checkpoint{at}"
    if kind == "resumed":
        return f"goes on from the checkpoint of step {step:,}" if isinstance(step, int) else "goes on from a checkpoint"
    if kind in ("warning", "spike"):
        return f"warning{at}: {row.get('message') or row.get('reason') or kind}"
    if kind == "accepted":
        return f"{row.get('action')} accepted{at}"
    if kind in ("refused", "rejected", "expired"):
        return f"request {row.get('action') or row.get('file')} {kind}{at}: {row.get('reason', '')}".rstrip(": ")
    return ""


def stage_line(done: Mapping[str, Any]) -> str:
    """What a stage has seen and what it cost, from the counters that the worker keeps of it."""
    parts = [f"{done.get('steps') or 0:,} steps, {format_count(done.get('samples'))} samples"]
    parts.append(f"{format_count(done.get('tokens'))} tokens in {format_seconds(done.get('seconds'))}")
    for key, name in (("loss", "loss"), ("validation_loss", "validation")):
        if isinstance(done.get(key), int | float):
            parts.append(f"{name} {format_loss(done[key])}")
    return ", ".join(parts)


def plain_lines(view: RunView, update: Update) -> Iterator[str]:
    """Lines for a pipe or a log, in the order of the steps: events, validations, and every few seconds the training."""
    lines: list[tuple[int, str]] = []
    trained: dict[str, Any] | None = None
    for row in update.metrics:
        if row.get("kind") == "validate":
            lines.append((_step_of(row), "  ".join(_figures(row, view, "validation loss"))))
        else:
            trained = row
    now = time.monotonic()
    if trained is not None and (now - view.last_plain >= PLAIN_SECONDS or update.status.finished):
        view.last_plain = now
        lines.append((_step_of(trained), "  ".join(_figures(trained, view, "loss"))))
    for row in update.events:
        if described := describe_event(row):
            lines.append((_step_of(row), described))
        if isinstance(row.get("sample"), str) and row["sample"].strip():
            lines.append((_step_of(row), f"sample at step {_step_of(row):,}: {' '.join(row['sample'].split())}"))
    for _, line in sorted(lines, key=lambda item: item[0]):
        yield line


def _step_of(row: dict[str, Any]) -> int:
    step = row.get("step")
    return step if isinstance(step, int) else 0


def _figures(row: dict[str, Any], view: RunView, loss_name: str) -> Iterator[str]:
    yield f"step {row.get('step', 0):,}"
    if view.fraction is not None:
        yield f"{view.fraction:.0%}"
    yield f"{loss_name} {format_loss(row.get('loss'))}"
    for key, name in (("perplexity", "perplexity"), ("bits_per_byte", "bits per byte"), ("accuracy", "accuracy")):
        if isinstance(row.get(key), int | float):
            yield f"{name} {row[key]:,.1f}" if row[key] >= 100 else f"{name} {row[key]:.4g}"
    if isinstance(row.get("lr"), int | float):
        yield f"lr {row['lr']:.3g}"
    if isinstance(row.get("tokens_per_second"), int | float):
        yield f"{format_count(row['tokens_per_second'])} tokens/s"
        if view.seconds_left is not None:
            yield f"{format_seconds(view.seconds_left)} left"


def render(view: RunView) -> RenderableType:
    """The panel of a live terminal."""
    status = view.status
    head = Text.assemble(
        (view.path.name, "bold"),
        f"  {view.experiment}  " if view.experiment else "  ",
        (status.state, _STATE_STYLES.get(status.state, "cyan")),
    )
    if status.stage:
        head.append(f"  stage {status.stage}")
    if status.reason:
        head.append(f"  {status.reason}", style="red" if status.state != "stopped" else "")
    if status.active and status.age is not None and status.age > 10:
        head.append(f"  no sign of life for {format_seconds(status.age)}", style="yellow")
    parts: list[RenderableType] = [head]
    if view.activity() and (status.state in ("queued", "starting") or status.activity_share is not None):
        parts.append(Text(view.activity(), style="cyan"))
    if view.fraction is not None:
        parts.append(_progress_row(view))
    if status.step:
        parts.append(_figure_grid(view))
    if len(view.losses) > 1:
        parts.append(Text.assemble(("loss  ", "dim"), sparkline(view.losses, 60)))
    if view.note:
        parts.append(Text(view.note, style="dim", overflow="ellipsis", no_wrap=True))
    if view.sample:
        shown = " ".join(view.sample.split())
        parts.append(Panel(Text(shown[:480] + ("..." if len(shown) > 480 else "")), title="sample", title_align="left"))
    return Panel(Group(*parts), expand=True)


def _progress_row(view: RunView) -> RenderableType:
    row = Table.grid(expand=True, padding=(0, 1))
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    fraction = view.fraction or 0.0
    left = "" if view.seconds_left is None else f"  {format_seconds(view.seconds_left)} left"
    row.add_row(ProgressBar(total=1.0, completed=fraction), f"{fraction:.1%}{left}")
    return row


def _figure_grid(view: RunView) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 1))
    for _ in range(4):
        grid.add_column(ratio=1, no_wrap=True)
    perplexity = view.validation.get("perplexity", view.status.fields.get("validation_perplexity"))
    cells = [
        ("loss", format_loss(view.figure("loss"))),
        ("validation", format_loss(view.status.validation_loss)),
        ("perplexity", _perplexity(perplexity)),
        ("tokens/s", format_count(view.figure("tokens_per_second"))),
        ("step", f"{view.status.step:,}"),
        ("tokens", format_count(view.status.tokens)),
        ("lr", f"{view.figure('lr'):.3g}" if view.figure("lr") is not None else "-"),
        ("memory", format_bytes(view.memory)),
    ]
    shown = [Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in cells]
    grid.add_row(*shown[:4])
    grid.add_row(*shown[4:])
    return grid


def _perplexity(value: Any) -> str:
    """In the 18 columns that 80 leave for it."""
    if not isinstance(value, int | float):
        return "-"
    return f"{value:,.1f}" if value < 1000 else format_count(value)
