"""The log of a run in words: steps, validations and events in the order in which they came, a line each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

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


Table = NDArray[np.float64]
"""(N, 7), a row a line before it is put into words: clock, step, kind, figures. Of four thousand lines fifty are looked
at, and words take ten times the room. An event's words are in a mapping, its first figure the key."""
_TRAINED, _VALIDATED, _EVENT = 0.0, 1.0, 2.0
_SHOWN = {_TRAINED: _TRAIN, _VALIDATED: _VALIDATE}
_NO_STEP = -1.0
_EMPTY: Table = np.empty((0, 3 + len(_TRAIN)))


class LogLines(Sequence[Line]):
    """The lines of a log, each put into words when it is asked for. Never changes."""

    def __init__(self, table: Table = _EMPTY, said: Mapping[int, Line] = MappingProxyType({})) -> None:
        self._table, self._said = table, said

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, place: int) -> Line: ...
    @overload
    def __getitem__(self, place: slice) -> LogLines: ...
    def __getitem__(self, place: int | slice) -> Line | LogLines:
        if isinstance(place, slice):
            return LogLines(self._table[place], self._said)
        clock, step, kind, *figures = self._table[place].tolist()
        return self._said[int(figures[0])] if kind == _EVENT else _row_line(clock, int(step), figures, _SHOWN[kind])


class RunLog:
    """`take(picture)` gives all lines; only what is new since the last picture is looked at."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._table = _EMPTY
        self._said: dict[int, Line] = {}
        self._taken = (0, 0, 0)
        self._last_step = -math.inf
        self.lines = LogLines()

    def take(self, picture: RunPicture) -> LogLines:
        """The newest lines, oldest first. Called in a thread: the first picture of a long run takes a moment."""
        counts = (picture.train.num_rows, picture.validate.num_rows, len(picture.events))
        if counts == self._taken:
            return self.lines
        if any(now < before for now, before in zip(counts, self._taken, strict=True)):
            self._forget()  # it went back, or is another
        train, validate, events = self._taken
        told = dict(_events(picture.events, events))
        new = np.concatenate(
            [
                self._steps(picture.train, train),
                _rows(picture.validate, validate, _VALIDATED),
                np.array([_event_row(number, event) for number, event in told.items()]).reshape(-1, _EMPTY.shape[1]),
            ]
        )
        new = new[np.argsort(new[:, 0], kind="stable")]
        before = self._table[-1, 1] if len(self._table) else 0.0
        for row in new:
            before = row[1] = row[1] if row[1] != _NO_STEP else before
        self._table = np.concatenate([self._table, new])[-_MOST:]
        if told:
            said = {**self._said, **{number: _event_line(event) for number, event in told.items()}}
            kept = self._table[self._table[:, 2] == _EVENT, 3]
            self._said = {int(number): said[int(number)] for number in kept}
        self._taken = counts
        self.lines = LogLines(self._table, self._said)
        return self.lines

    def nearest(self, step: int) -> int | None:
        """The place of the line nearest to a step."""
        if not len(self._table):
            return None
        # Of several the last: a run that went back says what holds after what it gave up.
        return len(self._table) - 1 - int(np.argmin(np.abs(self._table[::-1, 1] - step)))

    def _steps(self, rows: Rows, start: int) -> Table:
        table = _rows(rows, start, _TRAINED)
        shown = np.zeros(len(table), dtype=bool)
        for index, (clock, loss) in enumerate(zip(table[:, 0].tolist(), table[:, 3].tolist(), strict=True)):
            if clock - self._last_step >= _STEP_SECONDS or not math.isfinite(loss):
                self._last_step, shown[index] = clock, True
        return table[shown]


def _rows(rows: Rows, start: int, kind: float) -> Table:
    """Rows of the metrics from `start` on."""
    start = max(start, rows.num_rows - _MOST)
    if start >= rows.num_rows:
        return _EMPTY
    columns = [rows.since(start, name) for name in ("clock", "step", *(name for name, _, _ in _SHOWN[kind]))]
    columns[1] = np.nan_to_num(columns[1], nan=_NO_STEP)
    columns.insert(2, np.full(len(columns[0]), kind))
    return np.stack(columns, axis=1)


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


def _events(events: Sequence[Mapping[str, Any]], start: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The events to tell, from `start` on, each with its number."""
    for number in range(max(start, len(events) - _MOST), len(events)):
        event = events[number]
        if event.get("event") not in _SAID_BY_ROWS and isinstance(event.get("clock"), int | float):
            yield number, event


def _event_row(number: int, event: Mapping[str, Any]) -> list[float]:
    step = event.get("step")
    place = float(step) if isinstance(step, int) else _NO_STEP
    return [float(event["clock"]), place, _EVENT, float(number), math.nan, math.nan, math.nan]


def _event_line(event: Mapping[str, Any]) -> Line:
    kind, step = str(event.get("event", "?")), event.get("step")
    head = _head(float(event["clock"]), step if isinstance(step, int) else -1)
    return (*head, (f"{kind}  ", event_ink(kind) or "accent"), (event_text(event), "muted"))


def _head(clock: float, step: int) -> Line:
    shown = clock_of(clock) if math.isfinite(clock) else ""
    return line((f"{shown:<8}  ", "muted"), f"step {step:<7,}  " if step >= 0 else " " * 14)
