"""Steering a run from outside: one small file a request, read by the worker at a step boundary.

Whoever steers calls `request` and watches the events; the worker asks its `ControlInbox` between two steps, does what
is asked and acknowledges it. Nothing in a request is ever used as a path or run as code.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmplay.runs.layout import CONTROL
from lmplay.runs.process import this_host
from lmplay.runs.writer import RunWriter
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json, write_atomically
from lmplay.utils.names import did_you_mean

ACTIONS = ("pause", "resume", "stop", "checkpoint", "validate", "sample", "set")
OUTCOMES = ("accepted", "done", "refused")
LARGEST_REQUEST = 64 * 1024
_FILE_NAME = re.compile(r"\d{1,20}-[0-9a-f]{8}\.json")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing asked of a worker. `arguments` is what the action takes; for `set`, the dotted keys and values."""

    id: str
    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    time: float = 0.0
    sender: str = ""


def request(run_path: Path, action: str, **arguments: Any) -> str:
    """Ask the worker of a run for `action`; returns the id under which the events acknowledge it."""
    if action not in ACTIONS:
        raise WrongUsageError(
            f"a run can't be asked to {action!r}{did_you_mean(action, ACTIONS)}; it can {', '.join(ACTIONS)}"
        )
    name = f"{time.time_ns()}-{secrets.token_hex(4)}"
    content = to_json(
        {
            "id": name,
            "action": action,
            "arguments": arguments,
            "time": time.time(),
            "sender": f"process {os.getpid()} on {this_host()}",
        }
    )
    if len(content) > LARGEST_REQUEST:
        raise WrongUsageError(f"the arguments of {action} are too long: a request holds up to {LARGEST_REQUEST} bytes")
    try:
        write_atomically(run_path / CONTROL / f"{name}.json", content, durable=False)
    except OSError as error:
        raise LMPlayError(
            f"the run {run_path.name} can't be steered: {error.strerror} ({run_path / CONTROL})"
        ) from error
    return name


class ControlInbox:
    """The worker's side: what is asked of the run that `writer` holds."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._folder = writer.path / CONTROL
        self._seen: set[str] = set()

    def pending(self) -> list[Request]:
        """Requests not returned before, oldest first. To be called between two steps; costs one look at a folder.

        Each is recorded as `requested`. A file that is no request is recorded as `rejected` and taken away; one that
        was meant for a worker before this one is recorded as `expired`.
        """
        try:
            with os.scandir(self._folder) as entries:
                names = sorted(entry.name for entry in entries if entry.name not in self._seen)
        except OSError:
            return []  # the folder was deleted or its disk is away: nothing can be asked then
        found = []
        for name in names:
            if name.startswith(".") and name.endswith(".tmp"):
                continue  # being written
            self._seen.add(name)
            try:
                request = _read_request(self._folder / name)
            except ValueError as error:
                self._writer.event("rejected", file=name[:200], reason=str(error))
                self._remove(name)
                continue
            facts = {
                "id": request.id,
                "action": request.action,
                "arguments": request.arguments,
                "sender": request.sender,
            }
            if name in self._writer.earlier_requests:
                self._writer.event("expired", **facts)
                self._remove(name)
                continue
            self._writer.event("requested", **facts, asked=request.time)
            found.append(request)
        return found

    def acknowledge(self, request: Request, outcome: str, **fields: Any) -> None:
        """Record that `request` was `accepted`, is `done`, or is `refused` (give a `reason`): it waits no longer."""
        assert outcome in OUTCOMES, outcome
        self._writer.event(outcome, id=request.id, action=request.action, **fields)
        self._remove(f"{request.id}.json")

    def _remove(self, name: str) -> None:
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError:
            return  # a folder, or not ours to delete: it is recorded and never looked at again by this worker


def _read_request(path: Path) -> Request:
    """The request in a file; ValueError with the reason otherwise. Follows no link, reads a bounded part."""
    if not _FILE_NAME.fullmatch(path.name):
        raise ValueError("not the name of a request")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(f"can't be opened: {error.strerror}") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("not a file")
        if facts.st_size > LARGEST_REQUEST:
            raise ValueError(f"{facts.st_size} bytes long; a request holds up to {LARGEST_REQUEST}")
        data = os.read(descriptor, LARGEST_REQUEST + 1)
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    action, arguments = content.get("action"), content.get("arguments", {})
    if not isinstance(action, str) or action not in ACTIONS:
        raise ValueError(f"unknown action {str(action)[:100]!r}")
    if not isinstance(arguments, dict):
        raise ValueError("its arguments are not an object")
    asked = content.get("time")
    return Request(
        id=path.stem,
        action=action,
        arguments=arguments,
        time=float(asked) if isinstance(asked, int | float) else 0.0,
        sender=str(content.get("sender", ""))[:200],
    )
