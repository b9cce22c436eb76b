"""Preparing the text of plans: `lmplay data prepare` in a process of its own, which goes on when the screen is left.

What it prints goes into files, so that whoever starts the workbench next sees how far it is. `look()` reads them and is
called in a thread.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lmplay.runs import JsonlTail, is_alive, mark_process
from lmplay.runs.layout import read_json_object
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import to_json, write_atomically
from lmplay_tui.state import state_folder

_JOB, _PROGRESS, _COMPLAINTS = "job.json", "progress.jsonl", "complaints.txt"

State = Literal["running", "done", "failed", "stopped"]


def prepare_command(plan: str) -> list[str]:
    return [sys.executable, "-m", "lmplay", "data", "prepare", plan, "--json", "--stream"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that is done on the way, such as reading a dataset."""

    what: str
    done: float
    total: float | None
    first: float
    """How far it was when this process began with it: an earlier one may have done a part."""
    seconds: float
    """Since this process began with it."""

    @property
    def share(self) -> float | None:
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        progress = self.done - self.first
        if not self.total or progress <= 0 or self.seconds < 1:
            return None
        return max(0.0, self.total - self.done) * self.seconds / progress


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The preparation of one plan, as it was at one moment."""

    plan: str
    state: State
    steps: tuple[Step, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        return Path(self.plan).stem if self.plan.endswith(".json") else self.plan


@dataclass
class _Followed:
    plan: str
    folder: Path
    job: Mapping[str, Any]
    tail: JsonlTail
    process: subprocess.Popen[bytes] | None = None
    steps: dict[str, Step] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    stopped: bool = False


class Preparations:
    """`start`, `stop` and `dismiss` by the plan; `look` for how far they are."""

    def __init__(
        self, folder: Path | None = None, *, command: Callable[[str], Sequence[str]] = prepare_command
    ) -> None:
        self._folder = folder or state_folder() / "preparing"
        self._command = command
        self._followed: dict[str, _Followed] | None = None
        self.now: tuple[Preparation, ...] = ()

    def get(self, plan: str) -> Preparation | None:
        return next((one for one in self.now if one.plan == plan), None)

    @property
    def running(self) -> tuple[Preparation, ...]:
        return tuple(one for one in self.now if one.state == "running")

    def start(self, plan: str) -> None:
        """Begin, or go on after an interruption. Raises `LMPlayError`."""
        known = self._known()
        if plan in known and not known[plan].finished and is_alive(known[plan].job):
            raise LMPlayError(f"{plan} is being prepared already")
        folder = self._folder / hashlib.sha256(plan.encode()).hexdigest()[:12]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / _PROGRESS).open("wb") as progress, (folder / _COMPLAINTS).open("wb") as complaints:
                process = subprocess.Popen(
                    self._command(plan),
                    stdin=subprocess.DEVNULL,
                    stdout=progress,
                    stderr=complaints,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "200"},
                    start_new_session=True,
                )
            job = {"plan": plan, **mark_process(process.pid).fields()}
            write_atomically(folder / _JOB, to_json(job) + "\n", durable=False)
        except OSError as error:
            raise LMPlayError(f"{plan} can't be prepared: {error.strerror or error}") from error
        # Collects it when it ends, so that it is no zombie as long as the workbench lives.
        threading.Thread(target=process.wait, daemon=True).start()
        known[plan] = _Followed(plan, folder, job, JsonlTail(folder / _PROGRESS), process)

    def stop(self, plan: str) -> None:
        """End it; what is prepared so far is kept, and the next start goes on there. Raises `OSError`."""
        one = self._known().get(plan)
        if one is not None and is_alive(one.job):
            one.stopped = True
            write_atomically(one.folder / _JOB, to_json({**one.job, "stopped": True}) + "\n", durable=False)
            try:
                os.killpg(int(one.job["pid"]), signal.SIGTERM)
            except ProcessLookupError:
                return  # it ended in this moment

    def dismiss(self) -> None:
        """Forget those that had ended when they were last looked at."""
        known = self._known()
        for one in self.now:
            if one.state != "running" and one.plan in known:
                self._forget(known[one.plan])
        self.now = self.running

    def look(self) -> tuple[Preparation, ...]:
        """How far each is; the same object as before when nothing has changed."""
        now = tuple(self._picture(one) for one in self._known().values())
        if now != self.now:
            self.now = now
        return self.now

    def _known(self) -> dict[str, _Followed]:
        """Those that were started from here, and those that an earlier workbench left."""
        if self._followed is None:
            self._followed = {}
            for file in sorted(self._folder.glob(f"*/{_JOB}")):
                try:
                    job = read_json_object(file, of="the preparation")
                except LMPlayError:
                    continue  # torn in a power cut: nothing that is still going
                plan = str(job.get("plan"))
                one = _Followed(plan, file.parent, job, JsonlTail(file.parent / _PROGRESS))
                one.stopped = bool(job.get("stopped"))
                self._followed[plan] = one
                if self._picture(one).state in ("done", "stopped"):
                    self._forget(one)  # what a person saw end, or ended, is no news
        return self._followed

    def _forget(self, one: _Followed) -> None:
        assert self._followed is not None
        self._followed.pop(one.plan, None)
        (one.folder / _JOB).unlink(missing_ok=True)

    def _picture(self, one: _Followed) -> Preparation:
        alive = is_alive(one.job)  # before reading: what it wrote last is read after its end
        for row in one.tail.read():
            _take(one, row)
        state: State = "running"
        problem = ""
        if one.finished:
            state = "done"
        elif not alive:
            state = "stopped" if one.stopped else "failed"
            problem = "" if one.stopped else self._reason(one)
        return Preparation(plan=one.plan, state=state, steps=tuple(one.steps.values()), problem=problem)

    def _reason(self, one: _Followed) -> str:
        """What it complained of last; of one that was killed, that it was."""
        try:
            text = (one.folder / _COMPLAINTS).read_text(errors="replace")
        except OSError:
            text = ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("lmplay: ")), "")
        if said:
            return said.removeprefix("lmplay: ")
        status = one.process.returncode if one.process is not None else None
        if status is not None and status >= 0 and lines:
            return lines[-1]
        how = f"ended by {signal.Signals(-status).name}" if status is not None and status < 0 else "ended"
        return f"the process was {how} before it was done; what it did is kept"


def _take(one: _Followed, row: Mapping[str, Any]) -> None:
    if "datasets" in row:
        one.finished = True
        return
    what, done, seconds = str(row.get("what", "")), row.get("done"), row.get("seconds")
    if not what or not isinstance(done, int | float) or not isinstance(seconds, int | float):
        return
    total = row.get("total")
    before = one.steps.get(what)
    began = one.started.setdefault(what, seconds)
    one.steps[what] = Step(
        what=what,
        done=done,
        total=total if isinstance(total, int | float) else None,
        first=before.first if before is not None else done,
        seconds=seconds - began,
    )
