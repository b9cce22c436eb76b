"""`--nproc N`: the worker is the first of N processes of its machine, and starts the others."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch._C._distributed_c10d import Store, TCPStore

from lmplay.train.parallel.place import Place, environment_of
from lmplay.train.parallel.watch import end_all

ADDRESS = "127.0.0.1"
# What is left to a sibling to end by itself once the first process has.
PATIENCE_SECONDS = 10.0

Siblings = list[subprocess.Popen[bytes]]


@contextlib.contextmanager
def siblings(folder: Path, count: int) -> Iterator[tuple[Store | None, Siblings]]:
    """Start processes 1 to `count - 1` of the run in `folder`; the store at which they meet, and they themselves.

    They belong to this process's group, so that what ends the worker from outside ends them too; none is left behind.
    """
    if count == 1:
        yield None, []
        return
    store = TCPStore(ADDRESS, 0, count, is_master=True, wait_for_workers=False)
    started: Siblings = []
    try:
        for rank in range(1, count):
            place = Place(rank=rank, size=count, local_rank=rank, local_size=count)
            environment = {**os.environ, **environment_of(place, address=ADDRESS, port=store.port)}
            command = [sys.executable, "-m", "lmplay.train", str(folder)]
            started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment))
        yield store, started
    finally:
        end_all(started, patience=PATIENCE_SECONDS)


def share_cores(place: Place) -> None:
    """Processes of one machine divide its cores, unless someone has said how many threads each may have."""
    if place.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.local_size))
