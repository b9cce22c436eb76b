"""The queue's keeper: gives each of its devices one run after another, unattended.

`python -m lmplay.runs.keeper ROOT DEVICE...`, started by `lmplay queue start`, apart from any terminal. It holds a lock
a device for as long as it lives, so two keepers never serve one; a run outlives its keeper, and the next waits for it.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from lmplay.runs.labels import change_labels
from lmplay.runs.layout import QUEUE, is_run, list_runs
from lmplay.runs.process import is_alive, mark_process, this_host
from lmplay.runs.queue import DONE, FAILED, KEEPER_LOG, OVER, RUNNING, STARTING, WAITING, Entry, Queue
from lmplay.runs.status import Status, read_status
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import to_json, write_atomically
from lmplay.utils.paths import cache_root

POLL_SECONDS = 1.0
# A run that is lost (its machine went down, its worker was killed) goes on from its checkpoint, so many times in all.
ATTEMPTS = 3

log = logging.getLogger(__name__)


class DeviceBusyError(LMPlayError):
    """Another keeper serves this device."""


def device_lock(device: str) -> FileLock:
    """The machine-wide lock of a device, not yet taken; one for all run folders of this user on this host."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{this_host()}-{device}")
    folder = cache_root() / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock", timeout=0, thread_local=False)


def refuse_busy(device: str) -> None:
    """Raise `DeviceBusyError` when a keeper serves the device now."""
    lock = device_lock(device)
    try:
        lock.acquire()
        lock.release()
    except Timeout:
        raise DeviceBusyError(f"another keeper serves {device} on this machine already") from None


def keeper_file(root: Path, device: str) -> Path:
    """Who keeps that device for the queue in `root`: a process mark, left behind by a keeper that was killed."""
    return root / QUEUE / f"keeper-{this_host()}-{device.replace(':', '-')}.json"


def launch_command(entry: Entry, device: str) -> list[str]:
    """The command that starts the run of an entry, or goes on with it, and returns once its worker is on its way."""
    own = ["--name", entry.run, "--device", device, "--detach"]
    return [sys.executable, "-m", "lmplay", "run", *entry.arguments, *own]


class Lane:
    """One device and the run that it has been given. `step` looks once and returns; nothing in it waits long."""

    def __init__(self, queue: Queue, device: str) -> None:
        self.queue = queue
        self.device = device
        self.name = f"{this_host()}/{device}"
        self._lock = device_lock(device)
        self._launcher: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise DeviceBusyError(f"another keeper serves {self.device} on this machine already") from None
        write_atomically(keeper_file(self.queue.root, self.device), to_json(mark_process().fields()) + "\n")

    def close(self) -> None:
        keeper_file(self.queue.root, self.device).unlink(missing_ok=True)
        self._lock.release()

    def step(self) -> bool:
        """Look after the entry that has the device, or give it to the next; True while anything is left to do here."""
        mine = [entry for entry in self.queue.entries() if entry.on_device == self.name and entry.state not in OVER]
        for entry in mine:
            if entry.state == STARTING:
                self._look_at_start(entry)
            elif entry.state == RUNNING:
                self._look_at_run(entry)
        if mine:
            return True
        if not any(entry.state == WAITING and entry.device in ("auto", self.device) for entry in self.queue.entries()):
            return False
        if not self._used_by_others() and (taken := self.queue.take(self.device, self.name)):
            self._launch(taken)
        return True

    def _launch(self, entry: Entry) -> None:
        log.info("%s: starting %s (attempt %d)", self.device, entry.run, entry.attempts)
        try:
            # Into a file: a pipe would break, and the start with it, if this keeper were killed meanwhile.
            with self._said(entry).open("wb") as output:
                self._launcher = subprocess.Popen(
                    launch_command(entry, self.device),
                    cwd=entry.folder,
                    env={**os.environ, "LMPLAY_RUNS": str(self.queue.root)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=output,
                    start_new_session=True,
                )
            self.queue.update(entry, launcher=mark_process(self._launcher.pid).fields())
        except psutil.NoSuchProcess:
            return  # it ended at once; the next look finds out how
        except OSError as error:
            self._end(entry, FAILED, f"can't be started in {entry.folder}: {error.strerror}")

    def _look_at_start(self, entry: Entry) -> None:
        """A launcher ends once the worker is there. It may be another keeper's, or have died with the machine."""
        if self._launcher is not None:
            if self._launcher.poll() is None:
                return
            status = self._launcher.returncode
            self._launcher = None
            if status != 0:
                said = self._said(entry).read_text(errors="replace").strip().splitlines()
                self._end(entry, FAILED, said[-1].removeprefix("lmplay: ") if said else f"exit status {status}")
                return
        elif entry.launcher and is_alive(entry.launcher):
            return
        path = self.queue.root / entry.run
        self._said(entry).unlink(missing_ok=True)
        if not is_run(path):
            # The start was lost before there was a run: once more, under the same name.
            self._again(entry, "its start was interrupted")
            return
        if entry.group:
            change_labels(path, group=entry.group)
        self.queue.update(entry, state=RUNNING)

    def _look_at_run(self, entry: Entry) -> None:
        path = self.queue.root / entry.run
        try:
            status = read_status(path)
        except LMPlayError as error:
            self._end(entry, FAILED, str(error))
            return
        if status.state == "lost":
            self._again(entry, status.reason)
        elif status.finished:
            self._end(entry, *_outcome(status))

    def _again(self, entry: Entry, reason: str) -> None:
        if entry.attempts >= ATTEMPTS:
            self._end(entry, FAILED, f"given up after {entry.attempts} attempts: {reason}")
            return
        log.info("%s: %s goes on: %s", self.device, entry.run, reason)
        self.queue.update(entry, state=WAITING, on_device="", reason=reason)

    def _said(self, entry: Entry) -> Path:
        return self.queue.folder / f"{entry.id}.stderr"

    def _end(self, entry: Entry, state: str, reason: str) -> None:
        log.info("%s: %s is %s%s", self.device, entry.run, state, f" ({reason})" if reason else "")
        self.queue.update(entry, state=state, reason=reason)

    def _used_by_others(self) -> bool:
        """Whether a run that was started by hand has this device now."""
        queued = {entry.run for entry in self.queue.entries() if entry.state in (STARTING, RUNNING)}
        for path in list_runs(self.queue.root):
            if path.name in queued:
                continue
            try:
                status = read_status(path)
            except LMPlayError:
                continue
            if status.active and status.host == this_host() and _same_device(status.fields.get("device"), self.device):
                return True
        return False


def keep(root: Path, devices: Sequence[str], *, until_empty: bool = False, stop: threading.Event | None = None) -> None:
    """Serve the devices until told to stop, or until nothing is left. Raises `DeviceBusyError` when one is taken."""
    queue = Queue(root)
    lanes = [Lane(queue, device) for device in devices]
    opened: list[Lane] = []
    stop = stop or threading.Event()
    try:
        for lane in lanes:
            lane.open()
            opened.append(lane)
        while not stop.is_set():
            busy = False
            for lane in lanes:
                try:
                    busy |= lane.step()
                except (OSError, LMPlayError) as error:
                    # A full or absent disk, a queue being edited: the night goes on, and so does the queue.
                    log.warning("%s: %s", lane.device, error)
                    busy = True
            if until_empty and not busy:
                return
            stop.wait(POLL_SECONDS)
    finally:
        for lane in opened:
            lane.close()


def spawn_keeper(root: Path, devices: Sequence[str]) -> int:
    """Start a keeper apart from this terminal; returns its pid. It logs to `.queue/keeper.log`."""
    folder = root / QUEUE
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / KEEPER_LOG).open("ab", buffering=0) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lmplay.runs.keeper", str(root), *devices],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, daemon=True).start()
    return process.pid


def find_devices() -> list[str]:
    """The devices of this machine that runs can be given: each CUDA card, else the CPU as a whole. Needs no torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        cards = [card for card in visible.split(",") if card.strip() not in ("", "-1")]
        return [f"cuda:{index}" for index in range(len(cards))] or ["cpu"]
    known = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return [f"cuda:{index}" for index in range(known)] or ["cpu"]


def _outcome(status: Status) -> tuple[str, str]:
    if status.state == "done":
        return DONE, ""
    # Stopped by a person: that is an end too, and what comes next may come.
    return (DONE, status.reason or "stopped") if status.state == "stopped" else (FAILED, status.reason)


def _same_device(used: object, device: str) -> bool:
    if not isinstance(used, str):
        return False
    return used == device or (used == "cuda" and device == "cuda:0")


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        keep(Path(arguments[0]), arguments[1:], stop=stop)
    except LMPlayError as error:
        log.error("%s", error)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
