"""Which process writes a run, told apart from any later process that happens to get the same pid.

A mark is written into `status.json` by the worker; a reader asks `is_alive` whether that very process still runs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, kw_only=True)
class ProcessMark:
    """A process, marked so that a reused pid, a reboot and another machine are told apart."""

    pid: int
    host: str
    process_started: float
    """When it started, in seconds since 1970; for people."""
    process_birth: float
    """The same on a clock that setting the time doesn't move (seconds since boot on Linux); for comparing."""
    boot: str
    """Names this boot of this machine and the pid namespace; empty where the system doesn't tell."""

    def fields(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "host": self.host,
            "process_started": self.process_started,
            "process_birth": self.process_birth,
            "boot": self.boot,
        }


def mark_process(pid: int | None = None) -> ProcessMark:
    """The mark of process `pid` (of this one without it). Raises `psutil.NoSuchProcess` when there is none."""
    process = psutil.Process(pid)
    return ProcessMark(
        pid=process.pid,
        host=this_host(),
        process_started=process.create_time(),
        process_birth=_birth(process),
        boot=this_boot(),
    )


def is_alive(mark: Mapping[str, Any]) -> bool | None:
    """Whether the process that wrote `mark` (the fields of a `ProcessMark`) runs now.

    `None` when this process can't know: the mark is of another host, or of a container with pids of its own. A mark
    without boot and birth (hand-written) is judged by its pid alone.
    """
    pid = mark.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        return None
    if mark.get("host") not in (None, "", this_host()):
        return None
    boot = mark.get("boot")
    if boot and this_boot() and boot != this_boot():
        updated = mark.get("updated")
        # Same name, other boot: this machine was restarted, unless a twin with the same name wrote since.
        return False if isinstance(updated, int | float) and updated < psutil.boot_time() else None
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and its starter has not collected it yet
            return False
        birth = mark.get("process_birth")
        return not isinstance(birth, int | float) or abs(_birth(process) - birth) < 0.05
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


@cache
def this_host() -> str:
    return platform.node()


@cache
def this_boot() -> str:
    """The kernel's id of this boot and the pid namespace, or "" where neither is known (not Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _birth(process: psutil.Process) -> float:
    try:
        # Field 22 of stat, counted after the command's closing parenthesis (the command may hold blanks).
        fields = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            raise psutil.NoSuchProcess(process.pid) from None
        return float(process.create_time())
    except ProcessLookupError:
        raise psutil.NoSuchProcess(process.pid) from None
