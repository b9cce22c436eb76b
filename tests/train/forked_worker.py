"""Run by the fixture `workers` in a process of its own: `work(folder)`, after what a test wants to go wrong in it.

Given as globals: `folder`, `environment`, and `faults`, names of functions below. Not a test module.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from lmplay.train.keep import checkpoint
from lmplay.train.worker import work

folder: str
environment: dict[str, str]
faults: dict[str, Any]


def die_in_the_middle_of_save(number: int) -> None:
    """SIGKILL when half of the trainer state of the process's save number `number` is on the disk."""
    really_save, saved = torch.save, 0

    def save(content: Any, path: Path) -> None:
        nonlocal saved
        saved += 1
        really_save(content, path)
        if saved == number:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.torch.save = save  # type: ignore[assignment]


if __name__ == "__main__":
    os.environ.update(globals()["environment"])
    log = os.open(Path(globals()["folder"]) / "worker.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for fault, argument in globals()["faults"].items():
        globals()[fault](argument)
    status = work(Path(globals()["folder"]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
