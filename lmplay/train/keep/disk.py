"""Full disks: told apart from other trouble, waited out, and shown in the run's status while they last."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

# What a writer must find free beyond its own size, so that rows and the status still fit beside it.
MARGIN = 4 << 20
# Seconds between two looks at a full disk.
POLL_SECONDS = 1.0

_FULL = (errno.ENOSPC, errno.EDQUOT)


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def is_full(error: BaseException, folder: Path, needed: int = 0) -> bool:
    """Whether `error`, met while writing into `folder`, came of a full disk or a used-up quota.

    Libraries that write for themselves report it in their own words; then what is free now decides.
    """
    if isinstance(error, OSError):
        return error.errno in _FULL
    if any(f"os error {number}" in str(error) for number in _FULL):
        return True
    return isinstance(error, RuntimeError) and free_bytes(folder) < needed + MARGIN


class Log(Protocol):
    """What training tells the world; `lmplay.runs.RunWriter` is one."""

    @property
    def path(self) -> Path:
        """The run's folder."""

    @property
    def earlier_requests(self) -> frozenset[str]: ...

    def metrics(self, *rows: Mapping[str, Any]) -> None: ...

    def event(self, kind: str, **fields: Any) -> None: ...

    def status(self, **fields: Any) -> None: ...

    def resumed(self, step: int, **fields: Any) -> None: ...


class PatientLog:
    """A log that loses no row and no event to a full disk: the run is `paused` until there is room.

    `heed` is called while waiting; it raises to end the wait. A small file in the run's folder is given up when the
    disk is full, so that the status can say why the run waits.
    """

    RESERVE_BYTES = 128 << 10

    def __init__(self, log: Log, *, heed: Callable[[], None]) -> None:
        self.impatient = log
        """The log itself: writing there may fail."""
        self._log = log
        self._heed = heed
        self._reserve = log.path / ".reserve"
        self._hold_reserve()

    @property
    def path(self) -> Path:
        return self._log.path

    @property
    def earlier_requests(self) -> frozenset[str]:
        return self._log.earlier_requests

    def metrics(self, *rows: Mapping[str, Any]) -> None:
        self._patiently(lambda: self._log.metrics(*rows))

    def event(self, kind: str, **fields: Any) -> None:
        self._patiently(lambda: self._log.event(kind, **fields))

    def resumed(self, step: int, **fields: Any) -> None:
        self._patiently(lambda: self._log.resumed(step, **fields))

    def status(self, **fields: Any) -> None:
        """Not waited for: what could not be written now is in the next heartbeat."""
        with contextlib.suppress(OSError):
            self._log.status(**fields)

    def wait_for_room(self, shortage: Callable[[], str | None]) -> None:
        """The run is paused as long as `shortage` gives a reason."""
        reason = shortage()
        if reason is None:
            return
        self._reserve.unlink(missing_ok=True)
        while reason is not None:
            self.status(state="paused", activity=f"waiting for room: {reason}")
            self._heed()
            time.sleep(POLL_SECONDS)
            reason = shortage()
        self._hold_reserve()
        self.status(state="running", activity=None)

    def _patiently(self, write: Callable[[], None]) -> None:
        done = False

        def shortage() -> str | None:
            nonlocal done
            if done:
                return None
            try:
                write()
            except OSError as error:
                if not is_full(error, self.path):
                    raise
                return f"the disk is full ({self.path})"
            done = True
            return None

        self.wait_for_room(shortage)

    def _hold_reserve(self) -> None:
        try:
            self._reserve.write_bytes(bytes(self.RESERVE_BYTES))
        except OSError:
            with contextlib.suppress(OSError):
                self._reserve.unlink(missing_ok=True)
