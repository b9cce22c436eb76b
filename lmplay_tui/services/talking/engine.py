"""A model that talks, in a process of its own: JSON lines to and from `python -m lmplay.generate.server`.

It may be killed, run out of memory or crash: the conversation lives here, and another process goes on with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from lmplay.utils.files import to_json
from lmplay.utils.huge_pages import with_huge_pages

_LONGEST_LINE = 64 << 20
_LEAVE_SECONDS = 3.0


class EngineError(Exception):
    """What went wrong, in one line. `died` when the process is gone."""

    def __init__(self, message: str, *, died: bool = False) -> None:
        super().__init__(message)
        self.died = died


class Engine:
    """`load` starts the process when there is none; `generate` streams; `cancel` stops what runs."""

    def __init__(self) -> None:
        self.facts: Mapping[str, Any] = {}
        """Of the loaded model: checkpoint, experiment, step, device, weights, max_len, cache_bytes, ..."""
        self._process: asyncio.subprocess.Process | None = None
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._complaints: deque[str] = deque(maxlen=20)
        self._readers: list[asyncio.Task[None]] = []
        self._last_id = 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def load(self, checkpoint: str) -> Mapping[str, Any]:
        """Take a checkpoint (of a run its newest); returns its facts. Raises `EngineError`."""
        if not self.running:
            await self._start()
        request = await self._send(op="load", checkpoint=checkpoint, device="auto", weights="auto")
        async for event in self._answers(request):
            self.facts = {key: value for key, value in event.items() if key not in ("id", "event")}
        return self.facts

    async def generate(self, **request: Any) -> AsyncIterator[dict[str, Any]]:
        """Events `text` and, last, `done`. Raises `EngineError`."""
        number = await self._send(op="generate", **request)
        async for event in self._answers(number):
            yield event

    async def cancel(self) -> None:
        """Stop the answer that is being written; its `done` still comes."""
        if self.running:
            await self._send(op="cancel", id=self._last_id)

    async def close(self) -> None:
        """End the process; it has a moment to go by itself."""
        process, self._process = self._process, None
        self.facts = {}
        if process is None or process.returncode is not None:
            return
        try:
            assert process.stdin is not None
            process.stdin.write(b'{"op": "quit"}\n')
            process.stdin.close()
            await asyncio.wait_for(process.wait(), _LEAVE_SECONDS)
        except (TimeoutError, OSError):
            process.kill()
            await process.wait()

    async def kill(self) -> None:
        """End it at once: the workbench is left."""
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
        await asyncio.gather(*self._readers)  # they end with it

    async def _start(self) -> None:
        await self.close()
        for reader in self._readers:
            reader.cancel()
        self._events, self._last_id = asyncio.Queue(), 0
        self._complaints.clear()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "lmplay.generate.server",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LONGEST_LINE,
                env=with_huge_pages({**os.environ, "NO_COLOR": "1"}),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"the engine can't be started: {error.strerror or error}", died=True) from error
        self._readers = [
            asyncio.create_task(self._read_events(self._process)),
            asyncio.create_task(self._read_complaints(self._process)),
        ]

    async def _send(self, **request: Any) -> int:
        if request["op"] != "cancel":
            self._last_id += 1
            request["id"] = self._last_id
        process = self._process
        if process is None or process.stdin is None:
            raise EngineError("the engine is not running", died=True)
        try:
            process.stdin.write((to_json(request) + "\n").encode())
            await process.stdin.drain()
        except OSError as error:
            raise self._death() from error
        return self._last_id

    async def _answers(self, number: int) -> AsyncIterator[dict[str, Any]]:
        while True:
            event = await self._events.get()
            if event is None:
                self._events.put_nowait(None)  # whoever asks again is told again
                raise self._death()
            if event.get("id") != number:
                continue  # the rest of a request that nobody waits for any more
            if event.get("event") == "error":
                raise EngineError(str(event.get("message")))
            yield event
            if event.get("event") in ("done", "ready"):
                return

    async def _read_events(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # something printed that is no answer
            if isinstance(event, dict):
                self._events.put_nowait(event)
        await process.wait()
        self._events.put_nowait(None)

    async def _read_complaints(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self._complaints.append(line.decode(errors="replace").strip())

    def _death(self) -> EngineError:
        status = self._process.returncode if self._process is not None else None
        if status is not None and status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        else:
            last = next((line for line in reversed(self._complaints) if line), "")
            how = f"has ended: {last}" if last else f"has ended with status {status}"
        return EngineError(f"the engine {how}; the conversation is kept", died=True)
