"""`lmplay-tui` in a pseudo-terminal of its own, for benchmarks and tests: what it sends, how soon, at what cost."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import psutil

_ESCAPES = re.compile(rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;?<>=]*[ -/]*[@-~]|\x1b[()][0-9A-B]|\x1b[=>78]")
BRAILLE = re.compile("[\u2801-\u28ff]")


class Terminal:
    """A program in a pseudo-terminal, by default the workbench. A context manager that ends it."""

    def __init__(
        self,
        *arguments: str,
        size: tuple[int, int] = (120, 40),
        command: Sequence[str] = (sys.executable, "-m", "lmplay_tui"),
        environment: Mapping[str, str] | None = None,
        term: str = "xterm-256color",
    ) -> None:
        columns, rows = size
        self.output = bytearray()
        """All that it has sent."""
        self.started = time.perf_counter()
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            # The size is there before the program asks for it.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            surroundings = {**os.environ, "TERM": term, "COLORTERM": "", "NO_COLOR": "", **(environment or {})}
            kept = {key: value for key, value in surroundings.items() if value}
            os.execvpe(command[0], [*command, *arguments], kept)
        self.process = psutil.Process(self.pid)
        self.status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        if self._master >= 0:
            os.close(self._master)

    # ---- watching ----------------------------------------------------------------------------------------------------

    def take(self, seconds: float) -> bytes:
        """What is sent within so many seconds; returns early when the program has ended."""
        start, end = len(self.output), time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0 and self._pump(left):
            pass
        return bytes(self.output[start:])

    def take_some(self, seconds: float) -> bytes:
        """What is sent next; nothing when nothing is within so many seconds."""
        start, end = len(self.output), time.perf_counter() + seconds
        while len(self.output) == start and (left := end - time.perf_counter()) > 0 and self._pump(left):
            pass
        return bytes(self.output[start:])

    def until(self, condition: Callable[[], bool], *, what: str, seconds: float = 60.0) -> float:
        """Seconds until something is so. `TimeoutError` ends with what was sent last."""
        begun = time.perf_counter()
        while not condition():
            if time.perf_counter() - begun > seconds or not self._pump(0.2):
                if condition():
                    break
                raise TimeoutError(f"waited for {what}; the last that was sent: {self.text[-2000:]}")
        return time.perf_counter() - begun

    def until_text(self, text: str, *, after: int = 0, seconds: float = 60.0) -> float:
        """Seconds until `text` was sent, after so many bytes of output."""
        return self.until(lambda: text in _readable(self.output[after:]), what=repr(text), seconds=seconds)

    def until_quiet(self, *, seconds: float = 60.0, silence: float = 1.5) -> None:
        """Wait until nothing has been sent for a while."""
        end = time.perf_counter() + seconds
        while self.take(silence):
            if time.perf_counter() > end:
                raise TimeoutError(f"never quiet: {self.text[-2000:]}")

    @property
    def text(self) -> str:
        """All that was sent, without the escape sequences."""
        return _readable(self.output)

    def cpu_seconds(self) -> float:
        used = self.process.cpu_times()
        return float(used.user + used.system)

    def _pump(self, seconds: float) -> bool:
        """Take in what comes within so many seconds; False when the other end is closed."""
        if self._master < 0:
            time.sleep(min(seconds, 0.05))
            return False
        if select.select([self._master], [], [], seconds)[0]:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # the program is gone
                return False
            self.output += data
            return bool(data)
        return True

    # ---- acting ------------------------------------------------------------------------------------------------------

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal under the program, as a lost connection does."""
        os.close(self._master)
        self._master = -1

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            self.wait()

    def wait(self, seconds: float = 30.0) -> int:
        """The exit status of the program, waited for while its output is read."""
        end = time.perf_counter() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.perf_counter() > end:
                raise TimeoutError(f"process {self.pid} goes on")
            else:
                self._pump(0.05)
        self.take(0.05)
        return self.status


def _readable(output: bytes | bytearray) -> str:
    return _ESCAPES.sub(b"", bytes(output)).decode("utf-8", errors="replace")
