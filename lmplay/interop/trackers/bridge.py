"""From a run directory to a tracker: `python -m lmplay.interop.trackers.bridge RUN TRACKER`, beside the worker.

Follows the run as any reader, gives every row to the tracker, and keeps its place in `trackers/<name>.json`, so that it
can be killed and started again. When the tracker fails, it waits and tries again; it never touches the run.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmplay.interop.trackers.names import FOLDER
from lmplay.interop.trackers.tracker import Tracker, open_tracker
from lmplay.runs import JsonlTail, all_settings, read_run_file, read_status
from lmplay.runs.layout import EVENTS, METRICS, SYSTEM
from lmplay.runs.status import SILENCE_SECONDS
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import to_json, write_atomically

POLL_SECONDS = 2.0
PATIENCE = 8  # failures in a row, with longer and longer pauses between them: about ten minutes
_POSITION = frozenset({"kind", "stage", "step", "samples", "tokens", "time", "clock"})
# Told at once; the place in the files is kept after each piece.
_CHUNK_BYTES = 1 << 20

log = logging.getLogger(__name__)


class Bridge:
    """Feeds one tracker with one run."""

    def __init__(self, run: Path, name: str) -> None:
        self.run = run
        self.name = name
        self._place_file = run / FOLDER / f"{name}.json"
        self._metrics, self._events, self._system = (JsonlTail(run / file) for file in (METRICS, EVENTS, SYSTEM))
        self._rewinds: list[tuple[int, int]] = []  # (place in the metrics, step gone back to), not told yet
        self._step = 0
        place = self._read_place()
        for file, tail in self._tails().items():
            tail.offset = place[file] if isinstance(place.get(file), int) else 0
        self._rewinds = [(at, step) for at, step in place.get("rewinds") or ()]
        self._tracker: Tracker | None = None

    def follow(self) -> int:
        """Until the run has ended and everything is told; the exit status."""
        failures = 0
        while True:
            # Before the rows: once it says that the run has ended, they are all there.
            status = read_status(self.run)
            try:
                told = self._tell()
                failures = 0
                if status.finished and not told:
                    self._finish(failed=status.state in ("failed", "lost"))
                    log.info("%s has been told all of %s", self.name, self.run.name)
                    return 0
            except Exception as error:  # noqa: BLE001 - a tracker may throw anything
                failures += 1
                log.warning("%s failed (%d of %d): %s: %s", self.name, failures, PATIENCE, type(error).__name__, error)
                self._tracker = None
                if failures >= PATIENCE:
                    log.error("given up; `lmplay runs track %s %s` tells the rest later", self.run.name, self.name)
                    return 1
                time.sleep(min(POLL_SECONDS * 2**failures, SILENCE_SECONDS * 5))
                continue
            if not told:
                time.sleep(POLL_SECONDS)

    def _tell(self) -> bool:
        """Give the tracker what is new, a bounded piece; True when there was anything."""
        before = ({file: tail.offset for file, tail in self._tails().items()}, list(self._rewinds))
        try:
            # Events after metrics: where a row says that the run went back, the event that explains it is there.
            metrics = self._metrics.read_with_offsets(_CHUNK_BYTES)
            events, system = self._events.read(_CHUNK_BYTES), self._system.read(_CHUNK_BYTES)
            if not (metrics or events or system):
                return False
            tracker = self._open()
            self._rewinds += [_rewind_of(row) for row in events if row.get("event") == "resumed"]
            for offset, row in metrics:
                self._tell_rewinds(tracker, offset)
                self._tell_row(tracker, row)
            self._tell_rewinds(tracker, self._metrics.offset)
            for row in events:
                if isinstance(row.get("sample"), str):
                    tracker.text("sample", row["sample"], step=self._step_of(row), time=_clock_of(row))
            for row in system:
                if values := _named("system", row):
                    tracker.log(values, step=self._step, time=_clock_of(row))
            tracker.flush()
        except BaseException:
            # Told again: twice is better than never.
            offsets, self._rewinds = before
            for file, tail in self._tails().items():
                tail.offset = offsets[file]
            raise
        place = {**{file: tail.offset for file, tail in self._tails().items()}, "rewinds": self._rewinds}
        write_atomically(self._place_file, to_json(place) + "\n", durable=False)
        return True

    def _tell_rewinds(self, tracker: Tracker, offset: int) -> None:
        while self._rewinds and self._rewinds[0][0] <= offset:
            tracker.rewind(self._rewinds.pop(0)[1])

    def _tell_row(self, tracker: Tracker, row: Mapping[str, Any]) -> None:
        kind = {"train": "train", "validate": "validation"}.get(str(row.get("kind", "train")))
        if kind is None:
            return
        self._step = self._step_of(row)
        values = _named(kind, row)
        values |= {f"progress/{key}": float(row[key]) for key in ("samples", "tokens") if _is_number(row.get(key))}
        tracker.log(values, step=self._step, time=_clock_of(row))

    def _step_of(self, row: Mapping[str, Any]) -> int:
        step = row.get("step")
        return step if isinstance(step, int) else self._step

    def _tails(self) -> dict[str, JsonlTail]:
        return {METRICS: self._metrics, EVENTS: self._events, SYSTEM: self._system}

    def _open(self) -> Tracker:
        if self._tracker is None:
            config = all_settings(read_run_file(self.run), everything=True)
            self._tracker = open_tracker(self.name, self.run, self.run / FOLDER / self.name, config)
        return self._tracker

    def _finish(self, *, failed: bool) -> None:
        if self._tracker is not None:
            self._tracker.finish(failed=failed)

    def _read_place(self) -> dict[str, Any]:
        try:
            place = json.loads(self._place_file.read_bytes())
        except (OSError, ValueError):
            return {}
        return place if isinstance(place, dict) else {}


def _named(kind: str, row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a row as `train/loss`, GPUs as `system/gpu0/use`; no NaN, which not every tracker takes."""
    found = {key: value for key, value in row.items() if key not in _POSITION}
    gpus = found.pop("gpus", None)
    for index, gpu in enumerate(gpus if isinstance(gpus, list) else ()):
        found |= {f"gpu{index}/{key}": value for key, value in gpu.items() if key != "index"}
    return {f"{kind}/{key}": float(value) for key, value in found.items() if _is_number(value)}


def _rewind_of(row: Mapping[str, Any]) -> tuple[int, int]:
    place, step = row.get("metrics_bytes"), row.get("step")
    return (place if isinstance(place, int) else 0, step if isinstance(step, int) else 0)


def _clock_of(row: Mapping[str, Any]) -> float:
    clock = row.get("clock")
    return float(clock) if isinstance(clock, int | float) else time.time()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    run, name = Path(arguments[0]), arguments[1]
    (run / FOLDER).mkdir(exist_ok=True)
    try:
        with FileLock(run / FOLDER / f"{name}.lock", timeout=0):
            return Bridge(run, name).follow()
    except Timeout:
        log.info("another bridge feeds %s with this run already", name)
        return 0
    except LMPlayError as error:
        log.error("%s", error)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
