"""Losing the terminal: a real pseudo-terminal is closed under the starter and under a viewer."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from lmplay.runs import is_live, read_status

from .conftest import FAKE_WORKER, StartWorker, wait_for

STARTER = """
import sys
from pathlib import Path
from lmplay.cli.viewer import view_run
from lmplay.runs import spawn_worker
run, worker = Path(sys.argv[1]), sys.argv[2]
spawn_worker(run, [sys.executable, worker, str(run), "--steps", "100000", "--pause", "0.01"])
view_run(run)
"""


def in_terminal(*command: str) -> tuple[subprocess.Popen[bytes], int]:
    """A process whose session has a pseudo-terminal of its own as its controlling terminal; and that terminal's end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    return process, ours


def read_until(terminal: int, text: bytes, *, seconds: float = 20) -> bytes:
    seen, end = b"", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen[-500:]
        seen += os.read(terminal, 65536)
    return seen


def test_closing_the_terminal_of_the_starter_leaves_the_run_going(run: Path) -> None:
    process, terminal = in_terminal(sys.executable, "-c", STARTER, str(run), str(FAKE_WORKER))
    read_until(terminal, b"tokens/s")
    pid = read_status(run).pid
    assert pid is not None
    try:
        os.close(terminal)  # the kernel hangs up: SIGHUP to the session, and every write fails
        process.wait(20)
        step = read_status(run).step
        wait_for(lambda: read_status(run).step > step + 5)
        assert read_status(run).pid == pid
    finally:
        os.killpg(pid, signal.SIGKILL)


def test_killed_viewers_leave_the_run_and_its_history_alone(run: Path, start_worker: StartWorker) -> None:
    start_worker(run, "--steps", "100000", "--pause", "0.01")
    viewer = [
        sys.executable,
        "-c",
        "import sys; from lmplay.cli.main import main; sys.argv[1:] = ['attach', 'one']; main()",
    ]
    viewers = [in_terminal(*viewer) for _ in range(2)]
    for _, terminal in viewers:
        read_until(terminal, b"tokens/s")
    viewers[0][0].kill()
    os.write(viewers[1][1], b"\x03")
    read_until(viewers[1][1], b"The run goes on")
    for process, terminal in viewers:
        process.wait(20)
        os.close(terminal)
    step = read_status(run).step
    wait_for(lambda: read_status(run).step > step + 5)
    assert is_live(run)


def test_question_at_the_interrupt_is_asked_and_obeyed(run: Path) -> None:
    process, terminal = in_terminal(sys.executable, "-c", STARTER, str(run), str(FAKE_WORKER))
    read_until(terminal, b"tokens/s")
    pid = read_status(run).pid
    try:
        os.write(terminal, b"\x03")
        read_until(terminal, b"(s)top and save")
        os.write(terminal, b"s\n")
        read_until(terminal, b"stopped")
        assert process.wait(20) == 0
        assert read_status(run).state == "stopped"
        assert (run / "checkpoints" / "latest").exists()
    finally:
        os.close(terminal)
        if is_live(run) and pid:
            os.killpg(pid, signal.SIGKILL)
