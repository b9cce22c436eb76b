"""What a run is doing, as far as its files and this machine's processes tell: the one place where `lost` is found.

The worker says what it believes in `status.json`; a worker that was killed can't take that back, so readers check.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lmplay.runs.layout import LOG, STATUS, WORKER, read_json_object, read_run_file
from lmplay.runs.process import is_alive
from lmplay.utils.errors import LMPlayError
from lmplay.utils.figures import format_count, format_seconds

STATES = ("queued", "starting", "running", "pausing", "paused", "stopping", "done", "stopped", "failed", "lost")
WRITTEN_STATES = STATES[:-1]  # `lost` is found by readers
FINISHED = frozenset({"done", "stopped", "failed"})
ENDED = FINISHED | {"lost"}
ACTIVE = frozenset({"starting", "running", "pausing", "paused", "stopping"})

ACTIVITY_FIELDS = ("activity_done", "activity_total", "activity_seconds_left")
"""How far the `activity` is; they are there only as long as it is."""

HEARTBEAT_SECONDS = 2.0
# Where the process can't be asked (another host), so many seconds without a sign of life mean lost: network disks
# show a change late, and a host under load writes late.
SILENCE_SECONDS = 60.0

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, kw_only=True)
class Status:
    """One look at `status.json`, with `lost` derived and the age of what it says."""

    state: str
    reason: str = ""
    """Why it failed, was stopped, or is thought lost; may be empty."""
    pid: int | None = None
    host: str | None = None
    step: int = 0
    samples: int = 0
    tokens: int = 0
    time: float = 0.0
    """Seconds spent training."""
    stage: str | None = None
    loss: float | None = None
    validation_loss: float | None = None
    updated: float | None = None
    """When the worker last wrote, in seconds since 1970 by the worker's clock."""
    age: float | None = None
    """Seconds since then by this machine's clock; never negative."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """All that `status.json` holds, also what has no attribute here."""

    @property
    def finished(self) -> bool:
        """No worker will write any more unless the run is resumed."""
        return self.state in ENDED

    @property
    def active(self) -> bool:
        """A worker holds the run."""
        return self.state in ACTIVE

    @property
    def activity(self) -> str:
        """What the worker does beside steps and how far that is, as `validating 12/40, 8 s left`; empty for nothing."""
        name = self.fields.get("activity")
        if not name or not (self.active or self.state == "queued"):
            return ""
        done, total, left = (_number(self.fields.get(key)) for key in ACTIVITY_FIELDS)
        words = str(name)
        if done is not None:
            words += f" {format_count(done)}" + (f"/{format_count(total)}" if total is not None else "")
        return words + (f", {format_seconds(left)} left" if left is not None and left > 1 else "")

    @property
    def activity_share(self) -> float | None:
        """How much of the activity is done, 0 to 1; None where that isn't known."""
        done, total, _ = (_number(self.fields.get(key)) for key in ACTIVITY_FIELDS)
        return min(1.0, done / total) if self.activity and done is not None and total else None

    @property
    def seconds_left(self) -> float | None:
        """Until the run is done, validations and checkpoints included, as its worker reckons; None without a worker."""
        left = _number(self.fields.get("eta_seconds"))
        return left if self.active else None


def read_status(path: Path) -> Status:
    """The status of the run in `path`; `LMPlayError` in one line when the folder holds no readable run."""
    fields = _read_fields(path)
    status = _judge(path, fields)
    if status.state == "lost" and (newer := _read_fields(path)) != fields:
        return _judge(path, newer)  # the worker said its last word, and went, between the two looks at it
    return status


def _read_fields(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path / STATUS, of=f"the run {path.name}")
    except LMPlayError:
        read_run_file(path)  # when that is missing or too new as well, it is the better message
        raise


def _judge(path: Path, fields: dict[str, Any]) -> Status:
    """What the worker says, unless there is none any more."""
    state = fields.get("state")
    if state not in STATES:
        raise LMPlayError(f"{STATUS} of the run {path.name} is damaged: its state is {state!r} ({path / STATUS})")
    reason = str(fields.get("error") or fields.get("reason") or "") if state in FINISHED else ""
    # One text for each name and state, however many runs there are.
    fields = {
        sys.intern(key): _NUMBERS.get(value, sys.intern(value)) if isinstance(value, str) else value
        for key, value in fields.items()
    }
    updated = _number(fields.get("updated"))
    age = None if updated is None else max(0.0, time.time() - updated)
    if state in ACTIVE:
        reason = _why_lost(fields, age)
    elif state == "queued":
        reason = _why_worker_is_lost(path)
    if reason and state not in FINISHED:
        state = "lost"
    return Status(
        state=state,
        reason=reason,
        pid=_integer(fields.get("pid")),
        host=fields["host"] if isinstance(fields.get("host"), str) else None,
        step=_integer(fields.get("step")) or 0,
        samples=_integer(fields.get("samples")) or 0,
        tokens=_integer(fields.get("tokens")) or 0,
        time=_number(fields.get("time")) or 0.0,
        stage=fields["stage"] if isinstance(fields.get("stage"), str) else None,
        loss=_number(fields.get("loss")),
        validation_loss=_number(fields.get("validation_loss")),
        updated=updated,
        age=age,
        fields=MappingProxyType(fields),
    )


def is_live(path: Path) -> bool:
    """Whether a worker holds the run now; False for a folder that holds no readable run."""
    try:
        return read_status(path).active
    except LMPlayError:
        return False


def _why_lost(fields: Mapping[str, Any], age: float | None) -> str:
    alive = is_alive(fields)
    if alive is False:
        return f"its worker (process {fields.get('pid')}) has gone without a word"
    if alive is None and (age is None or age > SILENCE_SECONDS):
        since = "" if age is None else f" for {age:.0f} s"
        return f"no sign of life from {fields.get('host') or 'its host'}{since}"
    return ""


def _why_worker_is_lost(path: Path) -> str:
    """A queued run waits for its turn, unless a worker was started for it and ended before it took the run."""
    try:
        mark = read_json_object(path / WORKER, of=f"the run {path.name}")
    except LMPlayError:
        return ""
    if is_alive(mark) is False:
        return f"its worker (process {mark.get('pid')}) ended before it began; {path / LOG} says why"
    return ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
