"""The log of a run in words: steps, validations and events in the order in which they came, a line each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from lmplay.stats.history import Rows
from lmplay_tui.figures import short_number
from lmplay_tui.lines import Line, joined, line
from lmplay_tui.services.run_feed import RunPicture
from lmplay_tui.views.run import clock_of, event_ink, event_text

_MOST = 4000
_STEP_SECONDS = 1.0
"""Of steps that come faster, one a second is shown: nobody reads more, and each line costs bytes."""
_TRAIN = (
    ("loss", "loss", "s0"),
    ("lr", "lr", ""),
    ("grad_norm", "|grad|", ""),
    ("tokens_per_second", "tok/s", "muted"),
)
_VALIDATE = (
    ("loss", "validation", "bold s1"),
    ("perplexity", "perplexity", ""),
    ("bits_per_byte", "bits/byte", ""),
    ("accuracy", "accuracy", "muted"),
)
_SAID_BY_ROWS = frozenset({"validated"})
"""Events of which a row of the metrics tells the same."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line before it is put into words: of four thousand, fifty are looked at, and words take ten times the room."""

    clock: float
    step: int
    """Below zero where none was said: that of the line before."""
    said: Line = ()
    """All of the line of an event."""
    figures: tuple[float, ...] = ()
    """Of a row, in the order of `shown`."""
    shown: Sequence[tuple[str, str, str]] = ()

    @property
    def line(self) -> Line:
        return self.said or _row_line(self.clock, self.step, self.figures, self.shown)


class LogLines(Sequence[Line]):
    """The lines of a log, each put into words when it is asked for. Never changes."""

    def __init__(self, entries: Sequence[_Entry] = ()) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, place: int) -> Line: ...
    @overload
    def __getitem__(self, place: slice) -> LogLines: ...
    def __getitem__(self, place: int | slice) -> Line | LogLines:
        return LogLines(self._entries[place]) if isinstance(place, slice) else self._entries[place].line


class RunLog:
    """`take(picture)` gives all lines; only what is new since the last picture is put into words."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._taken = (0, 0, 0)
        self._last_step = -math.inf
        self.lines = LogLines()

    def take(self, picture: RunPicture) -> LogLines:
        """The newest lines, oldest first. Called in a thread: the first picture of a long run takes a moment."""
        counts = (picture.train.num_rows, picture.validate.num_rows, len(picture.events))
        if counts == self._taken:
            return self.lines
        if any(now < before for now, before in zip(counts, self._taken, strict=True)):
            self._entries, self._taken, self._last_step = [], (0, 0, 0), -math.inf  # it went back, or is another
        train, validate, events = self._taken
        new = [
            *self._steps(picture.train, train),
            *_validations(picture.validate, validate),
            *_events(picture.events, events),
        ]
        new.sort(key=lambda entry: entry.clock)
        before = self._entries[-1].step if self._entries else 0
        for index, entry in enumerate(new):
            before = entry.step if entry.step >= 0 else before
            new[index] = replace(entry, step=before)
        self._entries = [*self._entries, *new][-_MOST:]
        self._taken = counts
        self.lines = LogLines(self._entries)
        return self.lines

    def nearest(self, step: int) -> int | None:
        """The place of the line nearest to a step."""
        if not self._entries:
            return None
        # Of several the last: a run that went back says what holds after what it gave up.
        return min(range(len(self._entries)), key=lambda index: (abs(self._entries[index].step - step), -index))

    def _steps(self, rows: Rows, start: int) -> Iterator[_Entry]:
        start = max(start, rows.num_rows - _MOST)
        if start >= rows.num_rows:
            return
        clocks, steps, figures = _columns(rows, start, _TRAIN)
        for index, clock in enumerate(clocks):
            bad = not math.isfinite(figures[0][index])
            if clock - self._last_step >= _STEP_SECONDS or bad:
                self._last_step = clock
                yield _Entry(clock, int(steps[index]), figures=tuple(column[index] for column in figures), shown=_TRAIN)


def _validations(rows: Rows, start: int) -> Iterator[_Entry]:
    start = max(start, rows.num_rows - _MOST)
    if start < rows.num_rows:
        clocks, steps, figures = _columns(rows, start, _VALIDATE)
        for index, clock in enumerate(clocks):
            yield _Entry(clock, int(steps[index]), figures=tuple(column[index] for column in figures), shown=_VALIDATE)


def _columns(
    rows: Rows, start: int, shown: Sequence[tuple[str, str, str]]
) -> tuple[list[float], list[float], list[list[float]]]:
    """(clocks, steps, the figures) from row `start` on."""
    clocks, steps = rows.since(start, "clock").tolist(), rows.since(start, "step").tolist()
    return clocks, steps, [rows.since(start, name).tolist() for name, _, _ in shown]


def _row_line(clock: float, step: int, values: Sequence[float], shown: Sequence[tuple[str, str, str]]) -> Line:
    parts = []
    for value, (name, title, ink) in zip(values, shown, strict=True):
        if not math.isnan(value):
            parts.append(
                line((f"{title} ", "muted"), (short_number(value), ink if math.isfinite(value) else "bold bad"))
            )
        elif name == "loss":
            parts.append(line((f"{title} ", "muted"), ("NaN", "bold bad")))
    return (*_head(clock, step), *joined(parts, ("  ", "")))


def _events(events: Sequence[Mapping[str, Any]], start: int) -> Iterator[_Entry]:
    for event in events[max(start, len(events) - _MOST) :]:
        kind, clock, step = str(event.get("event", "?")), event.get("clock"), event.get("step")
        if kind in _SAID_BY_ROWS or not isinstance(clock, int | float):
            continue
        ink = event_ink(kind) or "accent"
        place = step if isinstance(step, int) else -1
        text = event_text(event)
        yield _Entry(float(clock), place, (*_head(float(clock), place), (f"{kind}  ", ink), (text, "muted")))


def _head(clock: float, step: int) -> Line:
    shown = clock_of(clock) if math.isfinite(clock) else ""
    return line((f"{shown:<8}  ", "muted"), f"step {step:<7,}  " if step >= 0 else " " * 14)
