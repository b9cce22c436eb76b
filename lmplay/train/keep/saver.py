"""Writing checkpoints while training goes on: a snapshot, then a thread that writes it.

At most one snapshot exists at a time: that bounds the memory. Where even one does not fit, the step waits for the disk
instead. A full disk is waited out with the snapshot in memory; meanwhile `shortage` says so and the loop pauses.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from torch import Tensor

from lmplay.train.keep.checkpoint import Content, write_checkpoint
from lmplay.train.keep.disk import MARGIN, POLL_SECONDS, free_bytes, is_full
from lmplay.train.update.memory import give_back_freed_memory

# Share of the memory that is free now which a snapshot may take.
SNAPSHOT_SHARE = 0.5
# Seconds between two looks at signals and requests while the training waits for the writer.
HEED_SECONDS = 0.1


class SaveAbandonedError(Exception):
    """The disk stayed full until the run was asked to end."""


class BackgroundSaver:
    """`save(content)` returns as soon as nothing can change the content any more; `settle()` when it is on the disk.

    `on_written(folder, content)` is called in the writer's thread. What the writer met is raised by the next `settle`
    or `save`. `heed` is called now and then while they wait; it raises to end the wait.
    """

    def __init__(
        self, checkpoints: Path, *, on_written: Callable[[Path, Content], None], heed: Callable[[], None]
    ) -> None:
        self._checkpoints = checkpoints
        self._on_written = on_written
        self._heed = heed
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._abandoned = threading.Event()
        self.slowest = 0.0
        """Seconds that the slowest write took, waits for room not counted."""
        self.shortage: str | None = None
        """Why the writer waits for room, as long as it does."""

    def save(self, content: Content) -> None:
        self.settle()
        give_back_freed_memory()  # the snapshot before this one among it
        # What was gathered from several processes is a copy already.
        fits = content.shards is not None or content.nbytes < SNAPSHOT_SHARE * psutil.virtual_memory().available
        taken = snapshot(content) if fits and content.shards is None else content
        self._thread = threading.Thread(target=self._write, args=(taken,), name="lmplay-saver", daemon=True)
        self._thread.start()
        if not fits:
            self.settle()  # these tensors are the training's own: nothing may change them meanwhile

    def settle(self) -> None:
        """Wait for the writer, and raise what it met."""
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(HEED_SECONDS)
            self._heed()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Give up on a checkpoint that waits for room; one that is being written is finished."""
        self._abandoned.set()

    def _write(self, content: Content) -> None:
        folder: Path | None = None
        try:
            while True:
                try:
                    folder = folder or self._written(content)
                    if folder is not None:
                        self._on_written(folder, content)
                        return
                except Exception as error:
                    if not is_full(error, self._checkpoints, content.nbytes):
                        raise
                    self.shortage = f"the disk is full ({self._checkpoints})"
                if self._abandoned.wait(POLL_SECONDS):
                    raise SaveAbandonedError(f"step {content.about.step} was not saved: {self.shortage}")
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that trains
            self._error = error
        finally:
            self.shortage = None

    def _written(self, content: Content) -> Path | None:
        """The checkpoint's folder, or `None` where it would not fit on the disk."""
        free, needed = free_bytes(self._checkpoints), content.nbytes + MARGIN
        if free < needed:
            self.shortage = f"a checkpoint needs {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB free"
            return None
        began = time.monotonic()
        folder = write_checkpoint(self._checkpoints, content)
        self.slowest = max(self.slowest, time.monotonic() - began)
        return folder


class NoSaver:
    """Of a process that writes no checkpoints."""

    slowest = 0.0
    shortage: str | None = None

    def save(self, content: Content) -> None:
        """Nothing."""

    def settle(self) -> None:
        """Nothing."""

    def abandon(self) -> None:
        """Nothing."""


def snapshot(content: Content) -> Content:
    """A copy in the host's memory that shares nothing with the training."""
    return dataclasses.replace(content, weights=_copied(content.weights), state=_copied(content.state))


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value
