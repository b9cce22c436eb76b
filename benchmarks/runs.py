"""Runs at scale: opening a million rows, a hundred readers beside one writer, a hundred runs followed at once.

`python -m benchmarks.runs [--rows N] [--seconds S]`. Targets: the second opening in under 0.5 s, in bounded memory;
every reader sees whole rows only. Figures on a shared machine wander: openings are timed in turn, and the ratio counts.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from lmplay.plans import load_plan
from lmplay.runs import JsonlAppender, JsonlTail, RunFollower, RunWriter, create_run, summarize_all
from lmplay.stats.history import History
from lmplay.stats.side_cache import SideCache
from lmplay.train.record import provenance
from lmplay.train.request import RunRequest

PEAK = """
import sys
from pathlib import Path
from lmplay.stats.history import History
history = History(Path(sys.argv[1]))
history.train["step"], history.train["loss"], history.validate["loss"]
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
READERS = 100
PROCESSES = 4


def asked_for(number: int) -> dict[str, Any]:
    """What `lmplay run` writes down of a run beside its experiment, so that `run.json` has the size of a real one."""
    plan = load_plan("quickstart")
    rate = (1e-4, 6e-4, 1e-3, 3e-3)[number % 4]
    request = RunRequest(experiment="synthetic", plan=plan.name, seed=number % 5, train={"lr": rate})
    stages = [
        {"name": stage.name, "train": request.stage_config(preset={}, stage=stage.name, stage_train=stage.train)}
        for stage in plan.stages
    ]
    return {
        "request": request.model_dump(mode="json"),
        "plan": {"name": plan.name, "folder": str(plan.folder), "content": plan.model_dump(mode="json")},
        "config": {
            "model": {"max_len": 1024, "num_heads": 2, "num_blocks": 2, "embed_dim": 64, "attn_dropout": 0.1},
            "data": request.data_config().model_dump(mode="json"),
            "stages": [{**stage, "train": stage["train"].model_dump(mode="json")} for stage in stages],
        },
        "seed": request.seed,
        "cost": {"parameters": 6_598_528, "non_embedding_parameters": 3_316_544, "training_flops_per_token": 21e6},
        **_provenance(),
    }


@cache
def _provenance() -> dict[str, Any]:
    return provenance(experiment_file=__file__)


def write_run(root: Path, name: str, rows: int, **asked: object) -> Path:
    """A run with as many training rows, with the figures of a worker's, and a validation every thousand."""
    path = create_run("synthetic", name=name, root=root, **asked)
    dice = random.Random(0)
    with RunWriter(path) as writer:
        batch = []
        for step in range(1, rows + 1):
            loss = 3 + 8 * math.exp(-step / rows * 20) + dice.gauss(0, 0.05)
            place = {"stage": "mix", "step": step, "samples": step * 50, "tokens": step * 51200}
            times = {"time": step * 0.37, "clock": 1.7e9 + step * 0.37 + dice.random() / 100}
            learning_rate = 6e-4 * min(1, step / 2000) * (1 + math.cos(math.pi * step / rows)) / 2
            speed = {"tokens_per_second": 138000 * dice.random()}
            figures = {"loss": loss, "grad_norm": 1 + dice.random()}
            batch.append({"kind": "train", **place, "lr": learning_rate, **times, **speed, **figures})
            if step % 1000 == 0:
                scores = {"perplexity": math.exp(loss), "bits_per_byte": loss / 3, "accuracy": 0.3}
                batch.append({"kind": "validate", **place, **times, "loss": loss, **scores})
            if len(batch) > 5000:
                writer.metrics(*batch)
                batch = []
        writer.metrics(*batch)
        stage = {"name": "mix", "steps": rows, "samples": rows * 50, "tokens": rows * 51200, "validation_loss": 3.1}
        figures = {"validation_loss": 3.1, "validation_perplexity": 22.2, "validation_accuracy": 0.3}
        writer.status(state="done", device="cpu", total_steps=rows, stages=1, by_stage=[stage], **figures)
    return path


def time_openings(root: Path, rows: int, repeats: int = 3) -> None:
    path = write_run(root, "long", rows)
    size = (path / "metrics.jsonl").stat().st_size
    cold, warm, plain = [], [], []
    for _ in range(repeats):
        SideCache(path / "metrics.jsonl").remove()
        cold.append(_timed(lambda: _curves(path)))
        warm.append(_timed(lambda: _curves(path)))
        plain.append(_timed(lambda: [json.loads(line) for line in (path / "metrics.jsonl").open("rb")]))
    print(f"{rows:,} rows, {size / 1e6:.0f} MB of lines, seconds (median of {repeats}):")
    for name, times in (("first opening", cold), ("second opening", warm), ("json.loads, line by line", plain)):
        print(
            f"  {name:28} {statistics.median(times):7.3f}   x{statistics.median(times) / statistics.median(warm):.0f}"
        )
    SideCache(path / "metrics.jsonl").remove()
    peaks = [
        int(subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, check=True).stdout) for _ in "12"
    ]
    print(
        f"  peak memory of a process that opens it: first {peaks[0] / 1024:.0f} MiB, second {peaks[1] / 1024:.0f} MiB"
    )


def _curves(path: Path) -> None:
    history = History(path)
    assert len(history.train["step"]) == len(history.train["loss"])
    assert history.validate["loss"].size


def _timed(act: object) -> float:
    started = time.perf_counter()
    act()  # type: ignore[operator]
    return time.perf_counter() - started


def watch_with_many_readers(root: Path, seconds: float) -> None:
    """One writer for so long; readers in several processes check every row that they get."""
    path = root / "watched.jsonl"
    path.touch()
    done = multiprocessing.Event()
    results: multiprocessing.Queue[tuple[int, int, str]] = multiprocessing.Queue()
    workers = [
        multiprocessing.Process(target=_read_until, args=(path, done, results, READERS // PROCESSES))
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    appender, step = JsonlAppender(path), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        count = step % 4 + 1
        appender.append([_watched_row(number) for number in range(step, step + count)])
        step += count
        time.sleep(0.001)
    (root / "watched.total").write_text(str(step))
    done.set()
    found = [results.get(timeout=120) for _ in range(READERS)]
    for worker in workers:
        worker.join()
    wrong = [fault for _, _, fault in found if fault]
    complete = sum(rows == step for rows, _, _ in found)
    print(f"{READERS} readers, one writer, {seconds:g} s: {step:,} rows written, {complete} readers saw all of them,")
    print(
        f"  {sum(polls for _, polls, _ in found):,} looks, {len(wrong)} with a fault{': ' + wrong[0] if wrong else ''}"
    )


def _watched_row(step: int) -> dict[str, object]:
    return {"step": step, "text": "é" * (step % 500)}


def _read_until(path: Path, done: object, results: object, readers: int) -> None:
    def read() -> None:
        tail, expected, polls, fault = JsonlTail(path), 0, 0, ""
        while not fault:
            ended = done.is_set()  # type: ignore[attr-defined]
            for row in tail.read():
                if row != _watched_row(expected):
                    fault = f"got {str(row)[:80]} where step {expected} was due"
                    break
                expected += 1
            polls += 1
            if ended and expected >= int((path.parent / "watched.total").read_text()):
                break
            time.sleep(0.02)
        results.put((expected, polls, fault or ("skipped lines" if tail.skipped else "")))  # type: ignore[attr-defined]

    threads = [threading.Thread(target=read) for _ in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def follow_many(root: Path, count: int = 100) -> None:
    folder = root / "many"
    paths = [write_run(folder, f"run{number}", 200) for number in range(count)]
    followers = [RunFollower(path, recent_bytes=1 << 18) for path in paths]
    for follower in followers:
        follower.poll()
    idle = statistics.median(_timed(lambda: [follower.poll() for follower in followers]) for _ in range(10))
    print(f"following {count} runs: {idle * 1000:.1f} ms a look at all of them when nothing is new")
    listed = statistics.median(_timed(lambda: summarize_all(folder)) for _ in range(5))
    print(f"listing {count} runs: {listed * 1000:.1f} ms")


def time_writing(root: Path) -> None:
    path = create_run("synthetic", name="written", root=root)
    with RunWriter(path) as writer:
        row = {"kind": "train", "stage": "mix", "step": 1, "samples": 50, "tokens": 51200, "time": 0.4, "loss": 3.2}
        rows = statistics.median(_timed(lambda: [writer.metrics(row) for _ in range(1000)]) for _ in range(5)) / 1000
        status = statistics.median(_timed(lambda: [writer.status() for _ in range(100)]) for _ in range(5)) / 100
    print(f"writing: {rows * 1e6:.0f} µs a row, {status * 1e6:.0f} µs a status")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LMPLAY_CACHE"] = f"{folder}/cache"
        root = Path(folder) / "runs"
        root.mkdir()
        watch_with_many_readers(Path(folder), options.seconds)
        time_writing(root)
        follow_many(root)
        time_openings(root, options.rows)


if __name__ == "__main__":
    main()
