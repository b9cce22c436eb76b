"""`WarmPopen` starts `python -m ...` or `python -c ...` without the two seconds that importing torch takes.

The process is forked by a server (`tests.warm.server`) that has imported torch and its like, and nothing of lmplay.
Else it is what `subprocess.Popen` starts: a process of its own with its pid, pipes, signals and exit status. The Python
processes that it starts in its turn, such as a run's worker, are forked in the same way. Not for tests of how processes
start: what they import, and how an installed command is found.
"""

from __future__ import annotations

import atexit
import inspect
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
_address: str | None = None
_session = os.getsid(0)
_ColdPopen = subprocess.Popen  # also where a test has put `WarmPopen` in its place


def use(address: str) -> None:
    """In the server and in what it forks: it is there, and `subprocess` asks it where it can."""
    global _address
    _address = address
    subprocess.Popen = WarmPopen


def _server() -> str:
    global _address
    if _address is None:
        folder = tempfile.mkdtemp(prefix="lmplay-warm-")
        _address = f"{folder}/socket"
        server = _ColdPopen(
            [sys.executable, "-m", "tests.warm.server", _address],
            cwd=REPO,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(shutil.rmtree, folder)
        atexit.register(server.communicate)
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n", "the server of warm processes did not start"
    return _address


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The server's side of `WarmPopen`: what to become, with which standard streams."""
    said, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not said.endswith(b"\n"):
        said += connection.recv(1 << 16)
    return json.loads(said), streams


def _is_served(asked: dict[str, Any]) -> bool:
    """Whether these arguments of `Popen` are of a kind that the server starts.

    What stays in the session of its starter shall stay in its group too, which only works in the server's session.
    """
    args = asked["args"]
    is_python = not isinstance(args, str) and args[0] == sys.executable and args[1] in ("-m", "-c")
    return is_python and not asked["preexec_fn"] and (asked["start_new_session"] or os.getsid(0) == _session)


class WarmPopen(subprocess.Popen):
    """As `subprocess.Popen`, which it also is for everything but plain `python -m` and `python -c`."""

    _connection: socket.socket | None = None

    def _execute_child(self, *given: Any) -> None:
        start = super()._execute_child
        asked = inspect.signature(start).bind(*given).arguments
        if not _is_served(asked):
            start(*given)
            return
        cwd = Path.cwd() / (asked["cwd"] or "")
        environment = os.environ if asked["env"] is None else asked["env"]
        wanted = {
            "arguments": [os.fsdecode(word) for word in asked["args"][1:]],
            "cwd": str(cwd),
            "environment": dict(environment),
            "group": None if asked["start_new_session"] else os.getpgrp(),
        }
        pipes = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        streams = [own if pipe == -1 else pipe for own, pipe in enumerate(pipes)]
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server())
        said = json.dumps(wanted).encode() + b"\n"
        self._connection.sendall(said[socket.send_fds(self._connection, [said[:1000]], streams) :])
        self.pid = int(self._line())
        self._child_created = True
        self._close_pipe_fds(*(asked[name] for name in inspect.signature(self._close_pipe_fds).parameters))

    def _line(self) -> bytes:
        assert self._connection is not None
        line = b""
        while not line.endswith(b"\n"):
            part = self._connection.recv(1)
            assert part, "the server of warm processes has gone"
            line += part
        return line

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._connection is None:
            return super()._try_wait(wait_flags)
        if wait_flags & os.WNOHANG and not select.select([self._connection], [], [], 0)[0]:
            return 0, 0
        status = int(self._line())
        self._connection.close()
        return self.pid, status

    def _internal_poll(self, _deadstate: int | None = None, **defaults: Any) -> int | None:
        if self._connection is not None:
            defaults["_waitpid"] = lambda _pid, flags: self._try_wait(flags)
        return super()._internal_poll(_deadstate, **defaults)


def run(
    arguments: list[str], *, input: str | None = None, timeout: float = 240, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, *arguments], capture_output=True, encoding="utf-8")`."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    with WarmPopen([sys.executable, *arguments], **streams, **options) as process:
        try:
            output, errors = process.communicate(input or "", timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
