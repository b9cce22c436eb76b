"""An engine in a process of its own, seen from the caller: what happens to it cannot harm who asked. No torch here.

`lmplay chat` talks through this. The process is `python -m lmplay.generate.server`.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import to_json
from lmplay.utils.huge_pages import with_huge_pages

LAST_LINES = 20
LEAVE_SECONDS = 5.0
POLL_SECONDS = 0.05


class EngineDiedError(LMPlayError):
    """The process is gone: killed, out of memory, or crashed below Python. Start another one."""


class EngineRefusedError(LMPlayError):
    """The engine answered with an error; it is well and takes the next request."""


class Engine:
    """Start with `start`, then `generate`; after an `EngineDiedError`, `start` again."""

    def __init__(self, checkpoint: str, *, device: str = "auto", weights: str = "auto", compile: bool = False) -> None:
        self.checkpoint = checkpoint
        self.options: dict[str, Any] = {"device": device, "weights": weights, "compile": compile}
        self.facts: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._complaints: deque[str] = deque(maxlen=LAST_LINES)
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self, checkpoint: str | None = None) -> None:
        """Begin a new process; `wait_until_ready` waits for the model to be loaded.

        `checkpoint` is for once, in place of the engine's own, which may mean a newer one by now.
        """
        self.close()
        self._events = queue.SimpleQueue()
        self._complaints.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lmplay.generate.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=with_huge_pages(os.environ),
            start_new_session=True,  # ctrl+c in the terminal is for the caller to understand
        )
        for work in (_read_events, _read_complaints):
            target = self._events if work is _read_events else self._complaints
            threading.Thread(target=work, args=(self._process, target), daemon=True).start()
        self._load(checkpoint or self.checkpoint)

    def wait_until_ready(self) -> dict[str, Any]:
        """The facts of the loaded model. Raises `EngineRefusedError` when it can't be loaded."""
        for event in self._answers(self._load_id):
            self.facts = {name: value for name, value in event.items() if name not in ("id", "event")}
        return self.facts

    def reload(self) -> dict[str, Any]:
        """Take the newest checkpoint of the run; the old model stays when that fails."""
        self._load(self.checkpoint)
        return self.wait_until_ready()

    def generate(self, *, poll: Callable[[], None] | None = None, **request: Any) -> Iterator[dict[str, Any]]:
        """The events of one request, the last of which is `done`; the fields are those of the server's `generate`.

        `poll` is called all the while, so that a caller can look for ctrl+c and call `cancel`.
        """
        return self._answers(self._send(op="generate", **request), poll)

    def cancel(self) -> None:
        """Stop the request that runs; its `done` event still comes, with what was written so far."""
        self._send(op="cancel", id=self._last_id)

    def kill(self) -> None:
        """End the process at once, when it does not listen; whoever waits for it gets `EngineDiedError`."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process; it has a few seconds to go by itself."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        try:
            process.stdin.write('{"op": "quit"}\n')
            process.stdin.close()
        except OSError:
            process.kill()  # its end of the pipe is closed: it is dying or dead
        try:
            process.wait(timeout=LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _load(self, checkpoint: str) -> None:
        self._load_id = self._send(op="load", checkpoint=checkpoint, **self.options)

    def _send(self, **request: Any) -> int:
        if request.get("op") != "cancel":
            self._last_id += 1
            request["id"] = self._last_id
        if self._process is None:
            raise EngineDiedError("the engine is not running")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(to_json(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._death() from error
        return self._last_id

    def _answers(self, request_id: int, poll: Callable[[], None] | None = None) -> Iterator[dict[str, Any]]:
        while True:
            if poll is not None:
                poll()
            try:
                event = self._events.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if event is None:
                self._events.put(None)  # whoever asks again is told again
                raise self._death()
            if event.get("id") != request_id:
                continue  # the rest of a request that nobody waits for any more
            if event["event"] == "error":
                raise EngineRefusedError(str(event["message"]))
            yield event
            if event["event"] in ("done", "ready"):
                return

    def _death(self) -> EngineDiedError:
        assert self._process is not None
        try:
            status = self._process.wait(timeout=LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        last = self._complaints[-1].strip() if self._complaints and status > 0 else ""
        return EngineDiedError(f"the engine {how}" + (f": {last}" if last else ""))


def _read_events(process: subprocess.Popen[str], events: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            events.put(json.loads(line))
        except ValueError:
            break  # half a line: the process died while it wrote
    events.put(None)


def _read_complaints(process: subprocess.Popen[str], complaints: deque[str]) -> None:
    assert process.stderr is not None
    complaints.extend(process.stderr)
