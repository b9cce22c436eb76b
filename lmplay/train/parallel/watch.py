"""Noticing that another process of the run has gone, and why, also while this one waits for it in a call.

Every process looks twice a second at the store where they met. The first one leaves word there when it ends, the
others when they fail; the store itself goes with the process that holds it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lmplay.train.parallel.place import Place
from lmplay.utils.errors import LMPlayError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

POLL_SECONDS = 0.5
# A process whose partner has gone has so long to find out by itself, and to say so.
GRACE_SECONDS = 3.0
OVER = "over"


class LostError(LMPlayError):
    """Another process of the run has gone, so that this one cannot go on."""


class Watch:
    """A context: inside, this process is ended when another one has gone and nothing else ends it.

    `children` are processes that this one has started. An error that leaves the context is told to the others.
    """

    def __init__(
        self,
        store: Store,
        place: Place,
        children: Sequence[subprocess.Popen[bytes]],
        on_loss: Callable[[str], None] | None,
    ) -> None:
        self._store = store
        self._place = place
        self._children = children
        self._on_loss = on_loss
        self._reason: str | None = None
        self._found = threading.Event()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lmplay-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._place.rank == 0:
            self._say(OVER, "")
        elif isinstance(error, Exception) and not isinstance(error, LostError):
            self._say(f"failed/{self._place.rank}", " ".join(f"{type(error).__name__}: {error}".split()))
        self._left.set()

    def why(self) -> str:
        """What has become of the others, once this process cannot reach one of them."""
        self._found.wait(4 * POLL_SECONDS)
        return self._reason or "another process of this run has gone without a word"

    def _look(self) -> None:
        while not self._left.wait(POLL_SECONDS):
            reason = self._loss()
            if reason is None:
                continue
            self._reason = reason
            self._found.set()
            if not self._left.wait(GRACE_SECONDS):
                self._end(reason)
            return

    def _loss(self) -> str | None:
        if self._place.rank:
            return "the first process of this run has ended" if self._heard(OVER) is not None else None
        for rank in range(1, self._place.size):
            said = self._heard(f"failed/{rank}")
            if said:
                return f"process {rank} of this run failed: {said}"
        for rank, child in enumerate(self._children, start=1):
            status = child.poll()
            if status:
                return f"process {rank} of this run {how_it_ended(status)}"
        return None

    def _heard(self, key: str) -> str | None:
        """What was left under `key`; empty where the store has gone, with the process that holds it."""
        try:
            return self._store.get(key).decode() if self._store.check([key]) else None
        except RuntimeError:
            return ""

    def _say(self, key: str, line: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set(key, line)

    def _end(self, reason: str) -> None:
        if self._on_loss is not None:
            with contextlib.suppress(OSError, LMPlayError):  # the folder is full, or gone
                self._on_loss(reason)
        print(f"lmplay: {reason}", file=sys.stderr, flush=True)  # noqa: T201 - the last word, into worker.log
        os._exit(1)


def how_it_ended(status: int) -> str:
    """Of a process with that exit status, in words."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"


def end_all(children: Sequence[subprocess.Popen[bytes]], *, patience: float) -> None:
    """Wait for processes that are about to end, and kill those that don't."""
    end = time.monotonic() + patience
    for child in children:
        try:
            child.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
