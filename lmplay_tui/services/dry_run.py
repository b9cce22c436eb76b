"""A run of one step that is thrown away: how far it is, what the step showed, and getting rid of it."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from lmplay.runs import JsonlTail, is_live, kill_worker, read_status
from lmplay.utils.errors import LMPlayError
from lmplay.utils.figures import format_bytes, format_seconds
from lmplay_tui.figures import short_number
from lmplay_tui.lines import Span

_PREFIX = "lmplay-dry-"  # and the process whose it is


def new_folder() -> Path:
    """An empty folder for a dry run. Those whose workbench was killed in the middle of theirs are thrown away now."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)) and path.stat().st_uid == os.getuid():
            throw_away(path)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


def look_at_dry_run(run: Path) -> tuple[str, Span | None]:
    """(what it is at, what the step showed: None until it is done). Reads the disk."""
    rows = [row for row in JsonlTail(run / "metrics.jsonl").read() if row.get("kind") == "train"]
    try:
        status = read_status(run)
    except LMPlayError:
        return "preparing", None  # there is no run yet
    if rows:
        return "", step_words(rows[-1], _memory_of(status.pid))
    return status.activity or status.state, None


def step_words(row: Mapping[str, Any], memory: float | None) -> Span:
    """What the one step showed; a loss that is no number is a warning."""
    loss = row.get("loss")
    works = isinstance(loss, int | float) and math.isfinite(loss)
    parts = [
        f"loss {short_number(loss)}",
        f"gradient norm {short_number(row.get('grad_norm'))}",
        f"{format_seconds(float(row['time']))} for the first step" if isinstance(row.get("time"), int | float) else "",
        f"{format_bytes(memory)} of memory" if memory else "",
    ]
    told = ", ".join(part for part in parts if part)
    return (f"it works: {told}", "good") if works else (f"the step was taken, but look at its loss: {told}", "bad")


def throw_away(folder: Path) -> None:
    """Delete the run in `folder`; its worker, where it still goes, first."""
    run = folder / "dry"
    if is_live(run):
        with contextlib.suppress(LMPlayError):  # it ended in this moment
            kill_worker(run)
    shutil.rmtree(folder, ignore_errors=True)


def _memory_of(pid: int | None) -> float | None:
    try:
        return float(psutil.Process(pid).memory_info().rss) if pid is not None else None
    except psutil.Error:
        return None  # it ended meanwhile
