"""Which trackers there are, whether they are installed, and starting a bridge to one; used by the command line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean

# Name -> the package that has to be there.
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
FOLDER = "trackers"


def check_trackers(names: Iterable[str]) -> list[str]:
    """The names, each once; `WrongUsageError` for one that is unknown or not installed, before a run is made for it."""
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in TRACKERS:
            raise WrongUsageError(
                f"there is no tracker {name!r}{did_you_mean(name, TRACKERS)}; there are {', '.join(TRACKERS)}"
            )
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise WrongUsageError(f"the tracker {name} is not installed: pip install {TRACKERS[name]}")
    return wanted


def spawn_bridges(run: Path, names: Iterable[str]) -> None:
    """Start a bridge process for each tracker, apart from this terminal; it ends when the run has ended."""
    for name in names:
        (run / FOLDER).mkdir(exist_ok=True)
        with (run / FOLDER / f"{name}.log").open("ab", buffering=0) as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "lmplay.interop.trackers.bridge", str(run), name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=process.wait, daemon=True).start()
