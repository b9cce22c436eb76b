"""The workbench in a pseudo-terminal: first frame, bytes, CPU, a million rows, ten thousand runs, memory over time.

`python -m benchmarks.tui [--rows N] [--runs N] [--seconds S] [--minutes M] [--only PART ...]`. Targets: first frame
0.5 s; idle 0 bytes and 1% of a core; a live run 12 kB/s to a tmux client and 8% of a core; the curves of a million rows
in 0.5 s from the side cache and 3 s without. `--minutes 60` uses the workbench for an hour beside a live run and
watches its memory.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from benchmarks.runs import asked_for, write_run
from benchmarks.terminal import BRAILLE, Terminal
from lmplay.runs import RunWriter, create_run
from lmplay.stats.side_cache import SideCache

PARTS = ("frame", "idle", "live", "rows", "folder", "memory")
SCREENS = {"1": "experiments", "3": "runs", "4": "run", "5": "compare", "7": "data", "6": "chat"}
FOLDER_KEYS = {
    "last": "G",
    "page up": "\x1b[5~",
    "first": "g",
    "page down": "\x1b[6~",
    "other way round": "O",
    "sort": "o",
    "filter opened": "/",
    "filter by a setting": "lr>=1e-3",
    "filter cleared": "\x1b",
}
ROWS_A_SECOND = 2.0
_READY = "Quit"
"""Stands at the end of the lowest line, which is sent last."""
_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""Where nothing is kept compiled, the screens are compiled at each start, which no installed copy is."""


def live_worker(path: Path) -> None:
    """What a worker writes, without a model: rows, validations with samples, checkpoints, the machine, its log."""
    dice = random.Random(0)
    log = (path / "worker.log").open("a", buffering=1)
    with RunWriter(path) as writer, writer.heartbeat():
        writer.event("started", device="cpu", parameters=6_598_528)
        writer.status(state="running", total_steps=100_000, device="cpu")
        began = time.monotonic()
        for step in itertools.count(1):
            loss = 3 + 7.5 * math.exp(-step / 400) + dice.gauss(0, 0.08)
            seconds = time.monotonic() - began
            place = {"stage": "learn", "step": step, "samples": step * 8, "tokens": step * 8192, "time": seconds}
            figures = {"loss": loss, "lr": 1e-3, "grad_norm": 1 + dice.random() / 4, "tokens_per_second": 16e3}
            writer.metrics({"kind": "train", **place, "clock": time.time(), **figures})
            if step % 60 == 0:
                scores = {"loss": loss + 0.1, "perplexity": math.exp(loss), "bits_per_byte": loss / 2, "accuracy": 0.3}
                writer.metrics({"kind": "validate", **place, "clock": time.time(), **scores})
                writer.event("validated", step=step, loss=loss + 0.1, sample=f"The sample of step {step} goes on.")
                log.write(f"step {step} validation loss {loss + 0.1:.4f}\n")
            if step % 200 == 0:
                (path / "checkpoints" / str(step)).mkdir()
                writer.event("saved", step=step, checkpoint=str(step))
            time.sleep(1 / ROWS_A_SECOND)


@contextmanager
def live_run(root: Path, name: str = "live") -> Iterator[Path]:
    """A run that goes on beside this process."""
    path = create_run("synthetic", name=name, root=root, plan={"name": "quickstart", "content": {}}, seed=0)
    worker = multiprocessing.get_context("spawn").Process(target=live_worker, args=(path,), daemon=True)
    worker.start()
    try:
        yield path
    finally:
        worker.kill()
        worker.join()


def time_first_frames(starts: int = 7) -> None:
    seconds, used = [], []
    for _ in range(starts + 1):
        with Terminal(environment=_COMPILED) as terminal:
            terminal.until_text(_READY)
            seconds.append(time.perf_counter() - terminal.started)
            used.append(terminal.cpu_seconds())
            listed = "test_runner" in terminal.text
            loaded = any("libtorch" in place.path for place in terminal.process.memory_maps())
            if len(seconds) == 1:
                terminal.until_text("test_runner")  # the first start asks `lmplay list`
                terminal.until_quiet()
            # Left, not killed: what it asked in processes of its own would slow the next start down.
            terminal.press("q")
            terminal.wait()
    later = seconds[1:]
    print(
        f"first frame: the very first {seconds[0]:.2f} s; then median {statistics.median(later):.2f} s, "
        f"worst {max(later):.2f} s of {starts} (target 0.5), "
        f"of which {statistics.median(used[1:]):.2f} s of a core; torch in the process: {'yes' if loaded else 'no'}; "
        f"experiments in that frame: {'yes' if listed else 'no'}"
    )


def measure_idle(root: Path, seconds: float) -> None:
    write_run(root, "ended", 500, **asked_for(0))
    with Terminal("--runs", str(root)) as terminal:
        terminal.until_text(_READY)
        for key, name in SCREENS.items():
            terminal.press(key)
            # In a fresh cache the experiments are described one after another, each by a process of some seconds.
            terminal.until_quiet(seconds=180, silence=12 if name == "experiments" else 4)
            sent, share = _cost(terminal, seconds, terminal.process)
            print(f"idle, {name:12} {sent:6.0f} bytes/s  {share:5.2f}% of a core  (targets 0 and 1%)")


def measure_live(root: Path, seconds: float) -> None:
    """The run screen at its default rate: plain, and as the client of a tmux server sees it."""
    with live_run(root) as path:
        with Terminal("live", "--runs", str(root)) as terminal:
            terminal.until(lambda: bool(BRAILLE.search(terminal.text)), what="curves")
            terminal.take(3)
            sent, share = _cost(terminal, seconds, terminal.process)
            print(f"a live run: {sent / 1000:.1f} kB/s sent, {share:.1f}% of a core (target 8%)")
        if shutil.which("tmux") is None:
            print("no tmux here: what its client gets was not measured")
            return
        server = f"lmplay-bench-{os.getpid()}"
        tmux = ["tmux", "-L", server, "-f", os.devnull]
        command = f"exec {sys.executable} -m lmplay_tui live --runs {root}"
        subprocess.run([*tmux, "new-session", "-d", "-x", "120", "-y", "40", command], check=True)
        try:
            found = subprocess.run([*tmux, "display-message", "-p", "#{pane_pid}"], capture_output=True, check=True)
            app = psutil.Process(int(found.stdout))
            with Terminal(command=[*tmux, "attach"], size=(120, 41)) as client:
                client.until(lambda: bool(BRAILLE.search(client.text)), what="curves")
                client.take(3)
                sent, share = _cost(client, seconds, app)
                print(f"a live run in tmux: {sent / 1000:.1f} kB/s to its client (target 12), {share:.1f}% of a core")
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)
    del path


def _cost(terminal: Terminal, seconds: float, process: psutil.Process) -> tuple[float, float]:
    """(bytes a second, % of a core) over so many seconds."""
    used, begun = sum(process.cpu_times()[:2]), time.perf_counter()
    sent = len(terminal.take(seconds))
    took = time.perf_counter() - begun
    return sent / took, 100 * (sum(process.cpu_times()[:2]) - used) / took


def time_many_rows(root: Path, rows: int) -> None:
    """Until there are curves: in a workbench that has not looked at the run yet, and from the start by
    `lmplay-tui RUN`.
    """
    path = write_run(root, "long", rows)
    size = (path / "metrics.jsonl").stat().st_size
    print(f"{rows:,} rows, {size / 1e6:.0f} MB of lines")
    for way in (_go_to_the_run, _start_with_the_run):
        for cached in (False, True):
            found = []
            for _ in range(5):
                if not cached:
                    SideCache(path / "metrics.jsonl").remove()
                found.append(way(root, path.name))
            seconds, used = (statistics.median(each) for each in zip(*found, strict=True))
            source = "from the side cache" if cached else "without the side cache"
            told = f"{seconds:.2f} s, {used:.2f} s of CPU (target {0.5 if cached else 3:g})"
            print(f"curves of {rows:,} rows {source}, {way.__doc__}: {told}")


def _go_to_the_run(root: Path, _: str) -> tuple[float, float]:
    """from a workbench that runs"""
    # What it remembers of the start before would show the run at once.
    with (
        tempfile.TemporaryDirectory() as state,
        Terminal("--runs", str(root), environment=_COMPILED | {"LMPLAY_STATE": state}) as terminal,
    ):
        terminal.until_text(_READY)
        terminal.until_quiet()
        terminal.until(lambda: not terminal.process.children(), what="the end of what the first screen has asked")
        used, start = _cpu(terminal), len(terminal.text)
        terminal.press("4")
        seconds = terminal.until(lambda: bool(BRAILLE.search(terminal.text[start:])), what="curves", seconds=120)
        return seconds, _cpu(terminal) - used


def _start_with_the_run(root: Path, name: str) -> tuple[float, float]:
    """from the start of lmplay-tui RUN"""
    with Terminal(name, "--runs", str(root), environment=_COMPILED) as terminal:
        terminal.until(lambda: bool(BRAILLE.search(terminal.text)), what="curves", seconds=120)
        return time.perf_counter() - terminal.started, _cpu(terminal)


def _cpu(terminal: Terminal) -> float:
    """Seconds that it has computed, and what it started and waited for."""
    return sum(terminal.process.cpu_times()[:4])


def look_at_many_runs(root: Path, count: int, seconds: float) -> None:
    """So many runs that have ended: until the list is there, until keys and the filter answer, at rest, with live ones.

    A key has answered at the last byte that it makes the workbench send: what it shows of the run under the cursor too.
    """
    for number in range(count):
        write_run(root, f"run-{number:05}", 3, **asked_for(number))
    size = (root / "run-00000" / "run.json").stat().st_size
    with Terminal("--runs", str(root)) as terminal:
        terminal.until_text(_READY)
        terminal.until_quiet()
        start = len(terminal.output)
        terminal.press("3")
        listed = terminal.until_text("run-0", after=start)
        terminal.until_quiet()
        answers = {name: _answer(terminal, key) for name, key in FOLDER_KEYS.items()}
        sent, share = _cost(terminal, seconds, terminal.process)
        memory = terminal.process.memory_info().rss / 2**20
        told = ", ".join(f"{name} {first:.2f} ({last:.2f})" for name, (first, last) in answers.items())
        print(
            f"{count:,} runs with a run.json of {size / 1000:.1f} kB: listed in {listed:.2f} s; seconds to the first "
            f"answer (to the last byte): {told}; then {sent:.0f} bytes/s, {share:.2f}% of a core (targets 0 and 1%); "
            f"{memory:.0f} MiB"
        )
        with ExitStack() as live:
            for number in range(5):
                live.enter_context(live_run(root, f"live-{number}"))
            terminal.until_text("5 live")
            terminal.press("g")  # by name they come first
            terminal.take(5)
            sent, share = _cost(terminal, seconds, terminal.process)
            print(f"five live ones among them: {sent:.0f} bytes/s, {share:.1f}% of a core")


def _answer(terminal: Terminal, key: str) -> tuple[float, float]:
    """Seconds from a key to the first that it makes the workbench send, and to the last."""
    begun = time.perf_counter()
    terminal.press(key)
    first = last = 0.0
    while terminal.take_some(1.5):
        last = time.perf_counter() - begun
        first = first or last
    return first, last


def watch_memory(root: Path, minutes: float) -> None:
    """Use the screens that show runs beside a live one, a key every second or so, and see whether memory grows."""
    for number in range(20):
        write_run(root, f"ended-{number}", 300)
    rounds = [
        "3", "jjjkk", "/", "state:done", "\r", "/", "\x15", "\r", "4", "+", "+", "\x1b[D", "\x1b[D", "-", "r", "z", "z",
        "v", "v", "v", "v", "v", "v", "y", "y", "x", "x", "x", "x", "s", "a", "]", "[", "\x1bOP", "\x1b", "\x10", "run",
        "\x1b", "1", "jj", "v", "v", "v", "v", "5", "x", "v", "v", "4", "\x0f", "\x1b",
    ]  # fmt: skip
    with live_run(root), Terminal("live", "--runs", str(root)) as terminal:
        terminal.until(lambda: bool(BRAILLE.search(terminal.text)), what="curves")
        terminal.press("3 j j 4".replace(" ", ""))
        begun, samples = time.monotonic(), []
        used = terminal.cpu_seconds()
        next_sample = 0.0
        for keys in itertools.cycle(rounds):
            passed = time.monotonic() - begun
            if passed >= next_sample:
                memory = terminal.process.memory_info().rss
                threads = terminal.process.num_threads()
                samples.append((passed, memory))
                files = terminal.process.num_fds()
                print(
                    f"{passed / 60:6.1f} min  {memory / 2**20:6.1f} MiB  {threads} threads  {files} files", flush=True
                )
                next_sample += minutes * 60 / 20
            if passed >= minutes * 60:
                break
            terminal.press(keys)
            terminal.output.clear()
            terminal.take(1.2)
            if terminal.process.status() == psutil.STATUS_ZOMBIE:
                raise SystemExit(f"the workbench ended after {keys!r}: {terminal.text}")
        share = 100 * (terminal.cpu_seconds() - used) / passed
    # The first quarter fills what is filled once: screens, caches of styles and of rows.
    settled = [sample for sample in samples if sample[0] >= minutes * 60 / 4]
    slope = statistics.linear_regression([at for at, _ in settled], [size for _, size in settled]).slope
    print(
        f"memory over {minutes:g} minutes: {samples[0][1] / 2**20:.1f} MiB at first, {samples[-1][1] / 2**20:.1f} MiB "
        f"at the end; {slope * 3600 / 2**20:+.1f} MiB an hour after the first quarter; {share:.1f}% of a core"
    )
    kept = _kept_of(root / "live") / minutes * 60
    print(f"of this the run's own figures, events and lines, which it has logged meanwhile: {kept:.1f} MiB an hour")


def _kept_of(path: Path) -> float:
    """MiB that the figures of a run take as its screen keeps them."""
    from lmplay_tui.services.run_feed import RunFeed
    from lmplay_tui.views.run_charts import charts_of
    from lmplay_tui.views.run_log import RunLog

    RunFeed(path).look()  # what is imported and made once
    tracemalloc.start()
    feed, log = RunFeed(path), RunLog()
    picture = feed.look()
    charts = charts_of(picture, ["loss", "lr", "grad_norm", "tokens_per_second"])
    log.take(picture)
    kept = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    del charts
    return kept


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=10_000, help="how many there are for `folder`")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long bytes and CPU are counted")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long the workbench is used for `memory`")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("CACHE", "STATE", "RUNS"):
            os.environ[f"LMPLAY_{name}"] = f"{folder}/{name.lower()}"
        os.environ["LMPLAY_CONFIG"] = f"{folder}/workbench.toml"
        root = Path(folder) / "runs"
        if "frame" in asked.only:
            time_first_frames()
        if "idle" in asked.only:
            measure_idle(root / "idle", asked.seconds)
        if "live" in asked.only:
            measure_live(root / "live", asked.seconds)
        if "rows" in asked.only:
            time_many_rows(root / "rows", asked.rows)
        if "folder" in asked.only:
            look_at_many_runs(root / "folder", asked.runs, asked.seconds)
        if "memory" in asked.only:
            watch_memory(root / "memory", asked.minutes)


if __name__ == "__main__":
    main(sys.argv[1:])
