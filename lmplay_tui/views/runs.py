"""The rows of the list of runs and of the queue, and their order. Pure: called in a thread for long lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lmplay.runs import RunSummary
from lmplay.runs.query import select, sort_runs
from lmplay.runs.queue import OVER, Entry
from lmplay.utils.errors import LMPlayError
from lmplay.utils.figures import format_count
from lmplay_tui.chart.data import ASCII_MARKS, MARKS
from lmplay_tui.columns import Column
from lmplay_tui.figures import loss_figure, progress_bar, short_seconds, state_sign
from lmplay_tui.lines import Line, line
from lmplay_tui.services.run_store import Snapshot
from lmplay_tui.theme import series_ink
from lmplay_tui.widgets.grid import Row

RUN_COLUMNS = (
    Column(key="mark", title="", least=1, most=1, help="marked for comparing"),
    Column(key="run", title="run", least=24, most=60, flex=1, sortable=True, ends=True),
    Column(key="experiment", title="experiment", least=6, most=20, rank=4, sortable=True),
    Column(key="state", title="state", least=7, most=9, rank=2, sortable=True),
    Column(key="stage", title="stage", least=5, most=14, rank=7, sortable=True),
    Column(key="progress", title="progress", least=13, most=17, sortable=True),
    Column(key="loss", title="loss", align="right", least=7, most=9, sortable=True),
    Column(key="validation_loss", title="valid.", align="right", least=7, most=9, sortable=True),
    Column(key="tokens_per_second", title="tok/s", align="right", least=6, most=7, rank=3, sortable=True),
    Column(key="left", title="left", align="right", least=6, most=8, rank=1, sortable=True),
    Column(key="age", title="seen", align="right", least=5, most=8, rank=5, sortable=True),
    Column(key="tag", title="tags", least=4, most=24, rank=6),
)
QUEUE_COLUMNS = (
    Column(key="place", title="", align="right", least=2, most=3),
    Column(key="run", title="run", flex=1, least=20, most=44, ends=True),
    Column(key="state", title="state", least=8, most=9),
    Column(key="device", title="device", rank=1, least=6, most=12),
    Column(key="group", title="group", rank=2, least=5, most=20),
    Column(key="arguments", title="what is run", flex=2, rank=3, least=12, most=160),
)
SORTABLE = ("created", *(column.key for column in RUN_COLUMNS if column.sortable))
_SHORT = {"validating": "valid.", "preparing": "prepare"}
_DESCENDING_FIRST = frozenset({"progress", "tokens_per_second", "state"})


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """How a person wants the list."""

    words: str = ""
    sort: str = "created"
    marked: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    baseline: str = ""
    colours: Mapping[str, int] = field(default_factory=dict)
    ascii_only: bool = False


@dataclass
class RowCache:
    """Rows made before: of ten thousand runs, those that changed are made anew."""

    rows: dict[str, tuple[object, Row]] = field(default_factory=dict)


def arranged(snapshot: Snapshot, how: Arrangement, cache: RowCache) -> tuple[list[Row], str]:
    """(rows, what is wrong with the filter). `sort` is a column's key, with a minus for the other way round."""
    runs: Sequence[RunSummary] = snapshot.runs
    problem = ""
    try:
        runs = select(runs, how.words)
    except LMPlayError as error:
        problem = str(error)
    if how.sort.removeprefix("-") != "created":
        runs = sort_runs(runs, how.sort)
    elif how.sort.startswith("-"):
        runs = list(reversed(runs))  # the oldest first: a snapshot has the newest first
    if how.pinned:
        pinned = set(how.pinned)
        runs = sorted(runs, key=lambda run: run.name not in pinned)
    marked = {name: place for place, name in enumerate(how.marked)}
    rows = []
    for run in runs:
        series = how.colours.get(run.name, marked.get(run.name, -1))
        facts = (run, series, run.name in marked, run.name == how.baseline, run.name in how.pinned, how.ascii_only)
        known = cache.rows.get(run.name)
        if known is None or known[0] != facts:
            known = (facts, run_row(run, how, series=series, marked=run.name in marked))
            cache.rows[run.name] = known
        rows.append(known[1])
    return rows, problem


def run_row(run: RunSummary, how: Arrangement, *, series: int, marked: bool) -> Row:
    status = run.status
    sign, ink = state_sign(run.state, ascii_only=how.ascii_only)
    marks = ASCII_MARKS if how.ascii_only else MARKS
    if run.name == how.baseline:
        mark = line(("B" if how.ascii_only else "★", f"bold {series_ink(max(series, 0))}"))
    elif marked:
        mark = line((marks[max(series, 0) % len(marks)], f"bold {series_ink(max(series, 0))}"))
    else:
        mark = ()
    pin = ("^ " if how.ascii_only else "↑ ", "accent") if run.name in how.pinned else ""
    if run.state == "broken":
        cells: list[Line] = [mark, line((f"{sign} ", ink), run.name), (), line(("broken", "bad")), (), ()]
        return Row(run.name, (*cells, *((),) * 5, line((status.reason, "bad"))))
    speed = status.fields.get("tokens_per_second")
    return Row(
        run.name,
        (
            mark,
            line((f"{sign} ", ink), pin, (run.name, "" if series < 0 else f"bold {series_ink(series)}")),
            line((run.experiment, "muted")),
            line((run.state, ink)),
            line((status.stage or "", "muted")),
            _progress(run, ascii_only=how.ascii_only),
            loss_figure(status.loss),
            loss_figure(status.validation_loss),
            line((format_count(speed), "muted")) if isinstance(speed, int | float) and status.active else (),
            line((short_seconds(run.seconds_left), "accent")),
            _age(run),
            line((" ".join(f"#{tag}" for tag in run.labels.tags), "second")),
        ),
    )


def _progress(run: RunSummary, *, ascii_only: bool) -> Line:
    doing = run.status.activity_share
    if doing is not None:  # a word for its first, so that the share fits into the narrowest column
        name = str(run.status.fields["activity"]).partition(" ")[0]
        return line((_SHORT.get(name, name[:8]), "primary"), f" {doing:.0%}")
    fraction = run.fraction
    if fraction is None:
        return line((f"step {run.status.step:,}" if run.status.step else "", "muted"))
    ink = "good" if run.status.active else "primary" if run.state == "done" else "muted"
    return (*progress_bar(fraction, 8, ascii_only=ascii_only, ink=ink), (f" {fraction:>4.0%}", ""))


def _age(run: RunSummary) -> Line:
    """How long ago the run gave a sign of life. Of a live run that is well no number: it would always change."""
    age = run.status.age
    if age is None:
        return ()
    if run.status.active:
        return line(("now", "good")) if age < 8 else line((short_seconds(age), "warn"))
    # Of ended runs in steps of a minute and more, for the same reason.
    return line((_coarse(age), "muted"))


def _coarse(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return "<1m"


def queue_rows(queue: Sequence[Entry], *, failed: int = 3) -> list[Row]:
    """What is being started, runs, or waits; and the latest that failed, with the reason."""
    rows = []
    place = 0
    over = [entry for entry in queue if entry.state in OVER and entry.state == "failed"][-failed:]
    for entry in [*(entry for entry in queue if entry.state not in OVER), *over]:
        waiting = entry.state == "waiting"
        place += waiting
        ink = {"running": "good", "starting": "primary", "failed": "bad"}.get(entry.state, "muted")
        what = entry.reason if entry.state == "failed" else " ".join(entry.arguments)
        rows.append(
            Row(
                entry.id,
                (
                    line((str(place) if waiting else "", "muted")),
                    line(entry.run),
                    line((entry.state, ink)),
                    line((entry.on_device.partition("/")[2] or entry.device, "muted")),
                    line((entry.group, "second")),
                    line((what, ink if entry.state == "failed" else "muted")),
                ),
            )
        )
    return rows


def next_sort(now: str) -> str:
    """The next column to sort by, in the direction that one wants first."""
    name = now.removeprefix("-")
    following = SORTABLE[(SORTABLE.index(name) + 1) % len(SORTABLE)] if name in SORTABLE else "created"
    return first_direction(following)


def first_direction(name: str) -> str:
    return f"-{name}" if name in _DESCENDING_FIRST else name
