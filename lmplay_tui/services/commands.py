"""The other rooms of lmplay, asked through their commands: `lmplay ... --json` in a process of its own.

Whatever such a process does (import torch for seconds, crash, be killed), the screen stays as it is and gets an error
in one line.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_LONGEST_LINE = 64 << 20
_LEAVE_SECONDS = 1.0


class CommandError(Exception):
    """A command failed; the text is what it said, in one line."""


class Commands:
    """Starts lmplay's commands. `readonly` refuses nothing here: what changes things is not offered by the screens."""

    def __init__(self, *, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = dict(environment or {})
        self._running: set[asyncio.subprocess.Process] = set()

    async def json(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
        """The object that `lmplay <arguments> --json` prints last. Raises `CommandError`."""
        last: Any = None
        async for value in self.stream(*arguments, "--json", whole=True, environment=environment):
            last = value
        if last is None:
            raise CommandError(f"lmplay {arguments[0]} said nothing")
        return last

    async def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """What the command prints, as text. Raises `CommandError` when it fails."""
        process = await self._start(arguments, environment)
        try:
            output, complaint = await process.communicate()
        finally:
            self._end(process)
        if process.returncode:
            # A comparison that is refused is an answer, on standard output.
            raise CommandError(_reason(complaint if complaint.strip() else output, process.returncode))
        return output.decode(errors="replace")

    async def stream(
        self, *arguments: str, whole: bool = False, environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[Any]:
        """The JSON values that the command prints, as they come: one a line, or with `whole` one in all.

        A command that fails after it printed something (a check that found a fault) is not an error; one that was
        killed is.
        """
        process = await self._start(arguments, environment)
        assert process.stdout is not None
        assert process.stderr is not None
        complaint = asyncio.create_task(_read_tail(process.stderr))
        printed = False
        try:
            if whole:
                output = await process.stdout.read()
                if output.strip():
                    printed = True
                    yield _parsed(output, arguments)
            else:
                async for line in process.stdout:
                    if line.strip():
                        printed = True
                        yield _parsed(line, arguments)
            status = await process.wait()
            if status < 0 or (status and not printed):
                raise CommandError(_reason(await complaint, status))
        finally:
            complaint.cancel()
            self._end(process)

    async def close(self) -> None:
        """End every command that is still going. Workers that were started by them live on."""
        running = list(self._running)
        for process in running:
            self._end(process)
        if running:
            await asyncio.wait([asyncio.create_task(process.wait()) for process in running], timeout=_LEAVE_SECONDS)

    async def _start(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None
    ) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "lmplay",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._folder,
                env={**os.environ, **self._environment, **(environment or {}), "COLUMNS": "200", "NO_COLOR": "1"},
                limit=_LONGEST_LINE,
                start_new_session=True,  # ctrl+c in the terminal is for the screen to understand
            )
        except OSError as error:
            raise CommandError(f"lmplay {arguments[0]} can't be started: {error.strerror or error}") from error
        self._running.add(process)
        return process

    def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask it to end, if it hasn't; it is waited for when the workbench is left."""
        self._running = {one for one in self._running if one.returncode is None}
        if process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                return  # it ended in this moment


async def _read_tail(stream: asyncio.StreamReader) -> bytes:
    """The end of what a command complains about; read all along, so that it never waits for a full pipe."""
    kept = b""
    while chunk := await stream.read(1 << 16):
        kept = (kept + chunk)[-(1 << 16) :]
    return kept


def _parsed(text: bytes, arguments: Sequence[str]) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f"lmplay {arguments[0]} printed something that is no JSON: {error}") from error


def _reason(complaint: bytes, status: int) -> str:
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    lines = [line.strip() for line in complaint.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("lmplay: ") if lines else f"ended with status {status}"
