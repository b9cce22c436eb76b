"""What the run screen says in words: the lines of its head, and the rows of events, samples, checkpoints, machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from lmplay.runs import RunSummary, all_settings, list_checkpoints, read_pointer, read_run_file
from lmplay.runs.layout import CHECKPOINTS
from lmplay.stats.history import Rows
from lmplay.utils.errors import LMPlayError
from lmplay.utils.figures import format_bytes, format_count, format_loss, format_seconds
from lmplay_tui.columns import GAP, Column
from lmplay_tui.figures import meter, progress_bar, short_number, state_sign
from lmplay_tui.lines import Line, facts, fitted, joined, line, plain, rewrapped, spread, width_of, wrapped
from lmplay_tui.services.requests import Asked
from lmplay_tui.services.run_feed import RunPicture
from lmplay_tui.views.run_charts import COUNTERS, figure_title
from lmplay_tui.widgets.grid import Row

EVENT_COLUMNS = (
    Column(key="clock", title="time", least=8, most=8),
    Column(key="step", title="step", align="right", least=9, most=9),
    Column(key="event", title="event", least=9, most=9),
    Column(key="text", title="", flex=1, least=10, most=400),
)
_EVENT_INDENT = 8 + 9 + 9 + 3 * GAP
CHECKPOINT_COLUMNS = (
    Column(key="step", title="step", align="right", least=6, most=12),
    Column(key="which", title="", least=4, most=12),
    Column(key="size", title="size", align="right", least=8, most=10),
    Column(key="saved", title="saved", least=10, most=24),
    Column(key="path", title="path", flex=1, rank=1, least=10, most=200),
)
CONFIG_COLUMNS = (
    Column(key="key", title="setting", least=20, most=44),
    Column(key="value", title="value", flex=1, least=10, most=300),
)
_SILENT_SECONDS = 10.0
_UNHAPPY = ("failed", "lost", "broken")


def head_lines(
    summary: RunSummary,
    asked: Sequence[Asked],
    width: int,
    *,
    rows: int = 4,
    at: Line = (),
    ascii_only: bool = False,
) -> list[Line]:
    """Name and state; progress; the newest figures, or those `at` the crosshair; what is asked of the run, or what it
    is at.

    Where there are three `rows`, the last is the one that says more at the moment. What ended a run takes two.
    """
    width = max(20, width)
    dot = " - " if ascii_only else " · "
    name = _name_line(summary, width, dot, ascii_only=ascii_only)
    progress = _progress_line(summary, width, ascii_only=ascii_only)
    figures, notice = _figure_line(summary, width), _notice_line(summary, asked)
    said = rewrapped(notice, width) if summary.state in _UNHAPPY and not at else [notice]
    if len(said) > 1:
        ending = [said[0], tuple(span for part in said[1:] for span in (*part, (" ", "")))]  # cut by who shows it
        return [name, *ending] if rows < 4 else [name, progress, *ending]
    return [name, progress, at or notice or figures] if rows < 4 else [name, progress, at or figures, notice]


def _name_line(summary: RunSummary, width: int, dot: str, *, ascii_only: bool) -> Line:
    sign, ink = state_sign(summary.state, ascii_only=ascii_only)
    about = [summary.experiment, summary.plan, f"seed {summary.seed}" if summary.seed is not None else ""]
    about += [f"#{tag}" for tag in summary.labels.tags]
    left = line((f"{sign} ", ink), (summary.name, "bold"), ("  " + dot.join(filter(None, about)), "muted"))
    status = summary.status
    right = [(summary.state, f"bold {ink}")]
    if status.stage:
        index, stages = status.fields.get("stage_index"), summary.stages
        number = f" {index + 1}/{stages}" if isinstance(index, int) and stages and stages > 1 else ""
        stage = plain(fitted(line(status.stage), min(cell_len(status.stage), max(8, width // 4)), ends=True))
        right.append((f"{dot}{stage}{number}", "muted"))
    if status.active and status.fields.get("device"):
        right.append((f"{dot}{status.fields['device']}", "muted"))
    if status.active and status.age is not None and status.age > _SILENT_SECONDS:
        right.append((f"{dot}silent for {format_seconds(status.age)}", "warn"))
    return spread(left, tuple(right), width)


def _progress_line(summary: RunSummary, width: int, *, ascii_only: bool) -> Line:
    status, fraction = summary.status, summary.fraction
    total = status.fields.get("total_steps")
    steps = f"step {status.step:,}" + (f"/{total:,}" if isinstance(total, int) else "")
    speed = status.fields.get("tokens_per_second")
    parts = [
        line((f"{fraction:.1%}", "bold")) if fraction is not None else (),
        line(steps),
        line(f"{format_count(status.tokens)} tokens"),
        line(f"{format_count(speed)} tok/s") if isinstance(speed, int | float) and status.active else (),
        line((f"{format_seconds(summary.seconds_left)} left", "accent")) if summary.seconds_left is not None else (),
    ]
    if not status.active and status.time:
        parts.append(line((f"{format_seconds(status.time)} of training", "muted")))
    text = joined(parts, ("  ", ""))
    room = width - sum(len(part) for part, _ in text) - 2
    if room < 10:
        return text
    ink = "good" if status.active else "primary" if summary.state == "done" else "muted"
    return (*progress_bar(fraction, min(room, 60), ascii_only=ascii_only, ink=ink), ("  ", ""), *text)


def _figure_line(summary: RunSummary, width: int) -> Line:
    fields = summary.status.fields
    loss, best = summary.status.loss, summary.status.validation_loss
    found: list[tuple[str, str, str]] = [
        ("loss", format_loss(loss), "bold s0" if _finite(loss) else "bold bad"),
        ("validation", format_loss(best), "bold s1" if best is None or _finite(best) else "bold bad"),
    ]
    for name, key in (("perplexity", "validation_perplexity"), ("bits/byte", "validation_bits_per_byte")):
        if isinstance(fields.get(key), int | float):
            found.append((name, short_number(fields[key]), ""))
    if isinstance(fields.get("validation_accuracy"), int | float):
        found.append(("accuracy", f"{fields['validation_accuracy']:.1%}", ""))
    for name, key in (("lr", "lr"), ("|grad|", "grad_norm")):
        if isinstance(fields.get(key), int | float):
            found.append((name, short_number(float(fields[key])), ""))
    parts: list[Line] = []
    size = 0
    for name, value, ink in found:
        if value == "-":
            continue
        size += len(name) + len(value) + 4
        if size > width + 3:
            break
        parts.append(line((f"{name} ", "muted"), (value, ink)))
    return joined(parts, ("   ", ""))


def about_lines(summary: RunSummary, width: int) -> list[Line]:
    """What was asked, of what, and when."""
    origin, width = summary.origin, max(20, width - 1)
    code = f"{origin.commit[:10]} {origin.branch}".strip()
    size = summary.cost.get("parameters")
    return facts(
        [
            ("started", clock_of(summary.created, date=True)),
            ("command", origin.command),
            ("model", f"{format_count(size)} parameters" if isinstance(size, int | float) else ""),
            ("code", line(code, (", with changes", "warn")) if origin.changed else code),
            ("on", origin.host),
            ("folder", line((str(summary.path), "muted"))),
            ("tags", " ".join(f"#{tag}" for tag in summary.labels.tags)),
            ("note", summary.labels.note),
        ],
        name_width=7,
        width=width,
    )


def crosshair_line(picture: RunPicture, x_axis: str, place: float, width: int) -> Line:
    """The row of the log nearest to the crosshair: which step that was, and every figure that it holds."""
    train = picture.train
    row = nearest_row(train, x_axis, place)
    if row is None:
        return ()
    parts = [
        line((f"step {int(train.column('step')[row]):,}", "bold accent")),
        line((f"{format_count(float(train.column('tokens')[row]))} tokens", "accent")),
        line((format_seconds(float(train.column("time")[row])), "accent")),
    ]
    usual = ("loss", "lr", "grad_norm", "tokens_per_second")
    for name in (*usual, *(name for name in train if name not in (*usual, *COUNTERS))):
        value = float(train[name][row]) if name in train else math.nan
        if math.isfinite(value) or name == "loss":
            part = line((f"{figure_title(name)} ", "muted"), (short_number(value), ""))
            if sum(width_of(one) + 3 for one in (*parts, part)) > width + 3:
                break
            parts.append(part)
    return joined(parts, ("   ", ""))


def nearest_row(train: Rows, x_axis: str, place: float) -> int | None:
    """The training row nearest to a place on the x axis."""
    x = train.column(x_axis)
    known = np.flatnonzero(np.isfinite(x))
    return int(known[np.argmin(np.abs(x[known] - place))]) if len(known) else None


def _notice_line(summary: RunSummary, asked: Sequence[Asked]) -> Line:
    parts = [line(one.words()) for one in reversed(asked[-3:])]  # the newest is the last to be cut
    if summary.status.reason:
        parts.append(line((summary.status.reason, "bad" if summary.state != "stopped" else "muted")))
    if summary.status.activity:
        parts.append(line((summary.status.activity, "primary")))
    if summary.labels.note:
        parts.append(line((f"note: {summary.labels.note}", "muted")))
    return joined(parts, ("   ", ""))


def _finite(value: float | None) -> bool:
    return value is not None and value == value and abs(value) != float("inf")


# ---- the views below the charts --------------------------------------------------------------------------------------


def event_rows(events: Sequence[Mapping[str, Any]], width: int, *, most: int = 2000) -> list[Row]:
    """The newest first; what takes more than a line goes on below, where it can't be chosen."""
    rows = []
    room = max(20, width - _EVENT_INDENT)
    for index in range(len(events) - 1, max(-1, len(events) - 1 - most), -1):
        event = events[index]
        kind = str(event.get("event", "?"))
        ink = event_ink(kind)
        step = event.get("step")
        said = wrapped(event_text(event), room, ink or "muted")
        rows.append(
            Row(
                str(index),
                (
                    line((clock_of(event.get("clock")), "muted")),
                    line(f"{step:,}" if isinstance(step, int) else ""),
                    line((kind, ink)),
                    said[0],
                ),
            )
        )
        rows += [
            Row(f"{index}:{place}", (line(" " * _EVENT_INDENT, *part),), heading=True)
            for place, part in enumerate(said[1:])
        ]
    return rows


_FAILURES = ("failed", "refused", "rejected", "killed")
_WARNINGS = ("warning", "spike", "expired")
_SAID_ELSEWHERE = frozenset({"event", "clock", "step", "id", "sample", "sender", "asked", "metrics_bytes"})


def event_ink(kind: str) -> str:
    return "bad" if kind in _FAILURES else "warn" if kind in _WARNINGS else ""


def event_text(event: Mapping[str, Any]) -> str:
    """What an event says beyond its kind, step and time."""
    if event.get("message"):
        return str(event["message"])
    parts = []
    for key, value in event.items():
        if key in _SAID_ELSEWHERE or value in (None, "", {}, []):
            continue
        if isinstance(value, Mapping):
            value = " ".join(f"{name}={_shown(one)}" for name, one in value.items())
        parts.append(f"{key}={_shown(value)}")
    return "  ".join(parts)


def _shown(value: object) -> str:
    return short_number(value) if isinstance(value, float) else str(value)[:200]


def sample_lines(events: Sequence[Mapping[str, Any]], width: int, *, most: int = 100) -> list[Line]:
    """The texts generated at validations and on request, the newest first."""
    lines: list[Line] = []
    texts = [event for event in events if isinstance(event.get("sample"), str)][-most:]
    for event in reversed(texts):
        step = event.get("step")
        loss = event.get("loss")
        told = f"  validation {format_loss(loss)}" if isinstance(loss, int | float) else ""
        lines.append(line((f"step {step:,}" if isinstance(step, int) else "sample", "bold accent"), (told, "muted")))
        lines += wrapped(str(event["sample"]).strip() or "(only blanks)", max(10, width - 1))
        lines.append(())
    return lines or [line(("samples of generated text come with each validation; T asks for one now", "muted"))]


def checkpoint_rows(path: Path) -> list[Row]:
    """Whole checkpoints, the newest first. Reads the disk: to be called in a thread."""
    try:
        folders = list_checkpoints(path)
    except LMPlayError as error:
        return [Row("problem", ((), (), (), (), line((str(error), "bad"))))]
    pointers = {
        which: target.name
        for which in ("latest", "best")
        if (target := read_pointer(path / CHECKPOINTS, which)) is not None
    }
    rows = []
    for folder in reversed(folders):
        try:
            files = [file.stat() for file in folder.iterdir() if file.is_file()]
        except OSError:
            continue  # taken away in this moment
        names = " ".join(which for which, name in pointers.items() if name == folder.name)
        saved = max((file.st_mtime for file in files), default=0.0)
        rows.append(
            Row(
                folder.name,
                (
                    line((f"{int(folder.name):,}", "bold")),
                    line((names, "accent")),
                    line(format_bytes(sum(file.st_size for file in files))),
                    line((clock_of(saved, date=True), "muted")),
                    line((str(folder), "muted")),
                ),
            )
        )
    return rows


def config_rows(path: Path) -> list[Row]:
    """All that was asked, under dotted keys. Reads the disk."""
    try:
        asked = read_run_file(path)
    except LMPlayError as error:
        return [Row("problem", (line(("problem", "bad")), line((str(error), "bad"))))]
    settings = all_settings(asked, everything=True)
    return [
        Row(key, (line((key, "muted")), line(short_number(value) if isinstance(value, float) else str(value))))
        for key, value in settings.items()
        if value not in (None, "", {}, [])
    ]


def machine_lines(picture: RunPicture, width: int, *, ascii_only: bool = False) -> list[Line]:
    """Use of processor, memory and cards, as the worker last measured it."""
    if not picture.system:
        return [line(("the worker has measured nothing yet", "muted"))]
    row = picture.system[-1]
    bar = max(10, min(40, width - 62))
    lines: list[Line] = []

    def add(name: str, share: float | None, text: str) -> None:
        lines.append(line((f"{name:<14}", "muted"), *meter(share, bar, ascii_only=ascii_only), f"  {text}"))

    cpu, own = row.get("cpu"), row.get("process_cpu")
    if isinstance(cpu, int | float):
        worker = f", worker {own:.0f}% of one core" if isinstance(own, int | float) else ""
        add("processor", cpu / 100, f"{cpu:.0f}%{worker}")
    used, total, process = row.get("memory_used"), row.get("memory_total"), row.get("process_memory")
    if isinstance(used, int | float) and isinstance(total, int | float) and total:
        worker = f", worker {format_bytes(process)}" if isinstance(process, int | float) else ""
        add("memory", used / total, f"{format_bytes(used)} of {format_bytes(total)}{worker}")
    for card in row.get("gpus") or ():
        name = f"gpu {card.get('index')}"
        extra = [
            f"{card['power']:.0f} W" if isinstance(card.get("power"), int | float) else "",
            f"{card['temperature']:.0f} C" if isinstance(card.get("temperature"), int | float) else "",
            str(card.get("name") or ""),
        ]
        use = card.get("use")
        if isinstance(use, int | float):
            add(name, use / 100, "  ".join(filter(None, [f"{use:.0f}%", *extra])))
        used, total = card.get("memory_used"), card.get("memory_total")
        if isinstance(used, int | float) and isinstance(total, int | float) and total:
            add(f"{name} memory", used / total, f"{format_bytes(used)} of {format_bytes(total)}")
    clock = row.get("clock")
    if isinstance(clock, int | float):
        lines += [(), line((f"measured {clock_of(clock, date=True)}", "muted"))]
    fields = picture.summary.status.fields
    worker_facts: list[tuple[str, str | Line]] = [
        ("worker", f"process {fields.get('pid')} on {fields.get('host')}" if fields.get("pid") else ""),
        ("device", str(fields.get("device") or "")),
        ("folder", str(picture.summary.path)),
    ]
    return [*lines, *facts(worker_facts, name_width=12)]


def clock_of(seconds: object, *, date: bool = False) -> str:
    if not isinstance(seconds, int | float):
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S", time.localtime(seconds))
