"""The queue of runs: what waits to be trained, in which order, on which device, and how it went.

One file, replaced atomically under a lock, so that it survives whatever kills those who work with it. `lmplay queue`
changes it; keepers (`lmplay.runs.keeper`) take entries from it.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmplay.runs.layout import QUEUE, check_run_name, new_run_name, read_json_object, runs_root
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json, write_atomically
from lmplay.utils.names import did_you_mean

FORMAT = 1
WAITING, STARTING, RUNNING, DONE, FAILED = "waiting", "starting", "running", "done", "failed"
OVER = frozenset({DONE, FAILED})
FILE = "queue.json"
KEEPER_LOG = "keeper.log"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run that is to be made: the arguments of `lmplay run` but for name and device, and the folder they mean."""

    id: str
    run: str
    """The run's name, chosen when it is queued; starting it twice goes on with the one run."""
    arguments: list[str]
    folder: str
    device: str = "auto"
    """The device it has to have, or `auto` for any."""
    group: str = ""
    added: float = 0.0
    state: str = WAITING
    reason: str = ""
    attempts: int = 0
    on_device: str = ""
    """Host and device that it was given, once it was."""
    launcher: dict[str, Any] = field(default_factory=dict)
    """The mark of the process that starts it, while it is `starting`."""


class Queue:
    """The queue beside the runs in `root`. Every change is made under the lock and is on disk when the call returns."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or runs_root()
        self.folder = self.root / QUEUE

    def entries(self) -> list[Entry]:
        """All entries in their order."""
        return self._read()

    def add(
        self,
        arguments: Sequence[str],
        *,
        folder: Path | None = None,
        name: str | None = None,
        device: str = "auto",
        group: str = "",
    ) -> Entry:
        """Put a run at the end of the queue. `arguments[0]` is the experiment, as after `lmplay run`."""
        with self._changing() as entries:
            run = check_run_name(name) if name else new_run_name(arguments[0])
            if (self.root / run).exists() or any(entry.run == run for entry in entries if entry.state not in OVER):
                raise WrongUsageError(
                    f"there is a run named {run} already, or one waits under that name: choose another"
                )
            entry = Entry(
                id=secrets.token_hex(3),
                run=run,
                arguments=list(arguments),
                folder=str((folder or Path.cwd()).absolute()),
                device=device,
                group=group,
                added=time.time(),
            )
            entries.append(entry)
            return entry

    def find(self, name: str) -> Entry:
        """The entry with that id, run name, or place among those that wait (from 1)."""
        entries = self._read()
        for entry in entries:
            if name in (entry.id, entry.run):
                return entry
        waiting = [entry for entry in entries if entry.state == WAITING]
        if name.isdecimal() and 1 <= int(name) <= len(waiting):
            return waiting[int(name) - 1]
        known = [name for entry in entries for name in (entry.id, entry.run)]
        raise WrongUsageError(f"the queue has no entry {name!r}{did_you_mean(name, known)}")

    def move(self, name: str, place: int) -> None:
        """Let a waiting entry be the `place`-th to come, from 1."""
        wanted = self.find(name)
        with self._changing() as entries:
            entry = _same(entries, wanted)
            if entry.state != WAITING:
                raise WrongUsageError(f"{entry.run} is {entry.state}: only what waits can be moved")
            entries.remove(entry)
            waiting = [index for index, other in enumerate(entries) if other.state == WAITING]
            place = max(1, place)
            entries.insert(waiting[place - 1] if place <= len(waiting) else len(entries), entry)

    def remove(self, name: str) -> Entry:
        """Take an entry out; one that is being run is refused."""
        wanted = self.find(name)
        with self._changing() as entries:
            entry = _same(entries, wanted)
            if entry.state in (STARTING, RUNNING):
                raise WrongUsageError(f"{entry.run} is {entry.state}: stop it with lmplay ctl {entry.run} stop")
            entries.remove(entry)
            return entry

    def clear(self) -> int:
        """Forget the entries that are over; their runs stay. Returns how many there were."""
        with self._changing() as entries:
            over = [entry for entry in entries if entry.state in OVER]
            entries[:] = [entry for entry in entries if entry.state not in OVER]
            return len(over)

    def take(self, device: str, on_device: str) -> Entry | None:
        """Claim the next waiting entry that may run on `device`; it is `starting` from then on."""
        with self._changing() as entries:
            for index, entry in enumerate(entries):
                if entry.state == WAITING and entry.device in ("auto", device):
                    claimed = replace(
                        entry, state=STARTING, on_device=on_device, attempts=entry.attempts + 1, launcher={}
                    )
                    entries[index] = claimed
                    return claimed
        return None

    def update(self, entry: Entry, **changes: Any) -> Entry:
        """Replace fields of an entry; returns it as it is then."""
        with self._changing() as entries:
            changed = replace(_same(entries, entry), **changes)
            entries[[other.id for other in entries].index(entry.id)] = changed
            return changed

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Entry]]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "queue.lock", timeout=20):
                entries = self._read()
                before = list(entries)
                yield entries
                if entries != before:
                    content = {"format": FORMAT, "entries": [asdict(entry) for entry in entries]}
                    write_atomically(self.folder / FILE, to_json(content, indent=1) + "\n")
        except Timeout:
            raise LMPlayError(
                f"the queue is locked by another process for 20 s ({self.folder / 'queue.lock'})"
            ) from None
        except OSError as error:
            raise LMPlayError(f"the queue can't be changed: {error.strerror} ({self.folder})") from error

    def _read(self) -> list[Entry]:
        file = self.folder / FILE
        if not file.exists():
            return []
        content = read_json_object(file, of="the queue")
        if content.get("format") != FORMAT:
            raise LMPlayError(f"the queue was written by another version of lmplay ({file}): update lmplay")
        try:
            return [Entry(**entry) for entry in content["entries"]]
        except (KeyError, TypeError) as error:
            raise LMPlayError(f"the queue is damaged ({file}: {error}); move the file away to begin anew") from error


def _same(entries: Sequence[Entry], wanted: Entry) -> Entry:
    for entry in entries:
        if entry.id == wanted.id:
            return entry
    raise LMPlayError(f"{wanted.run} is no longer in the queue")
