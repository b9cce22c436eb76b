"""A keeper whose runs are fake workers: python fake_keeper.py ROOT DEVICE...

As `lmplay run --detach`, the launcher makes the run or goes on with it, and returns when the worker is started. An
experiment named `broken` is refused; the other arguments of an entry go to the fake worker.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lmplay.runs import create_run, is_run, keeper, spawn_worker
from lmplay.runs.queue import Entry
from lmplay.utils.errors import LMPlayError

FAKE_WORKER = Path(__file__).with_name("fake_worker.py")


def fake_command(entry: Entry, device: str) -> list[str]:
    return [sys.executable, __file__, "--launch", entry.run, device, *entry.arguments]


def launch(name: str, device: str, experiment: str, *arguments: str) -> None:
    from lmplay.runs import runs_root

    if experiment == "broken":
        sys.exit("lmplay: there is no experiment named broken")
    path = runs_root() / name
    if not is_run(path):
        create_run(experiment, name=name)
    try:
        spawn_worker(path, [sys.executable, str(FAKE_WORKER), str(path), "--device", device, *arguments])
    except LMPlayError as error:
        sys.exit(f"lmplay: {error}")


if __name__ == "__main__":
    if sys.argv[1] == "--launch":
        launch(*sys.argv[2:])
        sys.exit(0)
    keeper.POLL_SECONDS = 0.05
    keeper.launch_command = fake_command
    sys.exit(keeper.main(sys.argv[1:]))
