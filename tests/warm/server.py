"""Forks Python processes for `tests.warm.client`: fresh ones, but for the packages that `main` has imported before.

Nothing of lmplay is among those: each process imports its own, from the path and with the environment it was given.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import selectors
import signal
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.warm import client

# What nearly every command that trains or generates would have to load for itself.
PACKAGES = (
    *("torch", "torch.utils.flop_counter", "torch.distributed.tensor", "torch._dynamo", "numpy", "safetensors.torch"),
    *("typer", "rich.live", "rich.progress", "rich.table", "pydantic", "psutil", "filelock", "platformdirs"),
    *("tiktoken", "tiktoken_ext.openai_public", "torchinfo"),
)


def serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork as often as asked. In each forked process: what it was asked to be. None once whoever started us ends."""
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    children: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        for source in (listener, woken, sys.stdin):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if sys.stdin in ready:
                return None
            if woken in ready:
                woken.recv(1 << 12)
                report_ended(children)
            if listener in ready:
                connection, _ = listener.accept()
                asked, streams = client.receive(connection)
                pid = os.fork()
                if pid == 0:
                    break
                children[pid] = connection
                connection.sendall(f"{pid}\n".encode())
                for stream in streams:
                    os.close(stream)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for end in (listener, woken, wake, connection, *children.values()):
        end.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return asked


def report_ended(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with children.pop(pid) as connection:
            try:
                connection.sendall(f"{status}\n".encode())
            except OSError:  # whoever had it started has ended before it
                continue


def become(asked: dict[str, Any]) -> None:
    """Run `-m module ...` or `-c code ...` as `python` would in that folder and environment."""
    if asked["group"] is None:
        os.setsid()
    else:
        os.setpgid(0, asked["group"])
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        lines = number == 2 or unbuffered or os.isatty(number)
        stream = open(number, "w", 1 if lines else -1, "utf-8", closefd=False)  # noqa: SIM115
        stream.reconfigure(write_through=unbuffered, errors="backslashreplace" if number == 2 else "strict")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    kind, program, *arguments = asked["arguments"]
    searched = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = ["" if kind == "-c" else str(Path.cwd()), *filter(None, searched)]
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(compile(program, "<string>", "exec"), vars(main))


def main() -> None:
    """`python -m tests.warm.server SOCKET`; says a line when it is ready, and ends with its standard input."""
    address = sys.argv[1]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        for package in PACKAGES:
            importlib.import_module(package)
        own = {os.path.realpath(folder) for folder in ("", *os.environ["PYTHONPATH"].split(os.pathsep))}
        sys.path[:] = [folder for folder in sys.path if os.path.realpath(folder) not in own]
        client.use(address)
        gc.collect()
        gc.freeze()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        asked = serve(listener)
    if asked is not None:
        become(asked)


if __name__ == "__main__":
    main()
