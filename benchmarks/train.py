"""Speed and memory of training, against transformers and the plain way: `python -m benchmarks.train`.

One update a mini-batch, float32, the same model and the same text for all:

- transformers: `GPT2LMHeadModel` as it comes, packed rows, `torch.optim.AdamW` as it comes;
- plain: one document a row, padded to the longest; attention, logits and loss written out; the predictions decoded
  for their accuracy at each step; `torch.optim.AdamW` as it comes;
- lmplay: the step that `lmplay run` makes, the same with all logits at once, with compiled blocks (`--compile`), and
  without huge pages (`--small-pages`);
- bounds (`--bounds`): the step's matrix products and torch's attention without dropout, and nothing else; the same with
  the gradient's norm and the fused AdamW. No step that is made of them can reach a higher share of the peak.

Tokens are targets that count. All alternatives of a table, each a process of its own, make steps in turn, and ratios
are taken within a round. The peak is the speed of square matrix products over a second; a step's share is taken of what
they reached just before and just after it, since a processor's speed changes within seconds. Peak memory is above what
the process took before the model was built.

On a machine that others use too, the clock says little: with `--cpu-time` all run on one thread, and its own seconds on
the processor are counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import torch

from benchmarks.train_steps import BOUNDS, CPU, LR, STEPS, Shape, trained_step
from lmplay.checks.estimates.flops import estimate_flops
from lmplay.train.bench import peak_resident
from lmplay.train.config import LossForm, TrainConfig
from lmplay.train.feed import batches
from lmplay.train.update.memory import keep_freed_memory
from lmplay.utils.huge_pages import with_huge_pages

# What `lmplay run` is held to: (times transformers, times plain, share of the peak).
TARGETS = {(1024, 2): (1.35, 1.8, 0.82), (256, 4): (1.12, 1.4, 0.88)}
MEMORY_TARGET = 0.55
Clock = Callable[[], float]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="gpt2ish", help="which model of the GPT-2 family to train")
    parser.add_argument("--sizes", nargs="*", default=["1024x2", "256x4"], help="sequence length x rows at once")
    parser.add_argument("--dropout", type=float, help="of all layers, instead of the model's own")
    parser.add_argument("--rounds", type=int, default=5, help="how often each alternative makes a step")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="cores to use")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, and its seconds on the processor")
    parser.add_argument("--peers", nargs="*", default=["transformers", "plain"], help="what to hold lmplay against")
    parser.add_argument("--compile", action="store_true", help="also with compiled blocks: a minute more")
    parser.add_argument("--small-pages", action="store_true", help="also with memory in pages of 4 KiB")
    parser.add_argument("--bounds", action="store_true", help="also what a step can't do without, alone")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1 if options.cpu_time else options.threads)
    clock = time.thread_time if options.cpu_time else time.perf_counter
    for size in options.sizes:
        length, rows = map(int, size.split("x"))
        shape = Shape(options.experiment, length, rows, options.dropout)
        if options.serve:
            serve(shape, options.serve, clock)
            return
        names = [*options.peers, "lmplay", "lmplay, all logits"]
        names += ["lmplay, compiled"] * options.compile + ["lmplay, small pages"] * options.small_pages
        names += BOUNDS * options.bounds
        show_shape(shape, names, options, clock)
    keep_freed_memory(CPU)
    show_tiny(options.rounds, clock)


# The measurements


class Alternative:
    """A process of its own that makes a step when told to: it shares no memory, warm or cold, with the others."""

    def __init__(self, shape: Shape, name: str, options: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "benchmarks.train", "--serve", name, "--experiment", shape.experiment]
        command += ["--sizes", f"{shape.length}x{shape.rows}", "--threads", str(options.threads)]
        command += [] if shape.dropout is None else ["--dropout", str(shape.dropout)]
        command += ["--cpu-time"] * options.cpu_time
        environment = dict(os.environ)
        if name == "lmplay, small pages":
            environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=0"
        elif name.startswith("lmplay") or name in BOUNDS:
            environment = with_huge_pages(environment)  # as a run's worker is started
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.speeds: list[float] = []
        self.peaks: list[float] = []
        self.memory = 0

    def step(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        tokens, seconds, self.memory = json.loads(self.process.stdout.readline())
        self.speeds.append(tokens / seconds)


def serve(shape: Shape, name: str, clock: Clock) -> None:
    """A step for each line that comes in; answers with its targets, its seconds, and the peak of memory until then."""
    if name.startswith("lmplay") or name in BOUNDS:
        keep_freed_memory(CPU)  # as the worker does
    if name == "transformers":
        import transformers.models.gpt2.modeling_gpt2  # noqa: F401
    shape.text().rows(0, 1)
    gc.collect()
    empty = psutil.Process().memory_info().rss
    step = STEPS[name](shape)
    for _ in sys.stdin:
        started = clock()
        tokens = step()
        print(json.dumps([tokens, clock() - started, peak_resident() - empty]), flush=True)


def show_shape(shape: Shape, names: list[str], options: argparse.Namespace, clock: Clock) -> None:
    dropout = "the model's own" if shape.dropout is None else shape.dropout
    print(
        f"\n{shape.experiment}, {shape.rows} rows of {shape.length} tokens, dropout {dropout}, {threads_of(clock)}",
        flush=True,
    )
    alternatives = {name: Alternative(shape, name, options) for name in names}
    before = matrix_peak(clock)
    for turn in range(options.rounds + 1):
        for name, alternative in alternatives.items():
            alternative.step()
            after = matrix_peak(clock)
            alternative.peaks.append((before + after) / 2)
            before = after
            print(f"{turn} of {options.rounds}: {name} {alternative.speeds[-1]:.0f} tokens/s", file=sys.stderr)
    flops = estimate_flops(shape.model(), shape.length).training
    peers = [name for name in ("transformers", "plain") if name in names]
    for name, alternative in alternatives.items():
        alternative.process.communicate()
        own = alternative.speeds[1:]  # the first step warms up
        shares = [flops * speed / peak for speed, peak in zip(own, alternative.peaks[1:], strict=True)]
        row = f"{name:<20}{statistics.median(own):6.0f} tokens/s{statistics.median(shares):5.0%} of the peak"
        row += f"{alternative.memory / 1e9:6.2f} GB"
        if peers:
            row += f"{alternative.memory / alternatives[peers[0]].memory:5.2f}x of {peers[0]}"
        for peer in peers:
            ratios = [speed / other for speed, other in zip(own, alternatives[peer].speeds[1:], strict=True)]
            row += f"  {statistics.median(ratios):5.2f}x {peer} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(row, flush=True)
    ours = alternatives["lmplay"]
    for name in names:
        if name.startswith("lmplay, "):
            other = alternatives[name]
            ratios = [own / theirs for own, theirs in zip(ours.speeds[1:], other.speeds[1:], strict=True)]
            print(
                f"lmplay to {name!r}: {ours.memory / other.memory:.2f}x of the memory, "
                f"{statistics.median(ratios):.3f}x of the speed ({min(ratios):.3f} to {max(ratios):.3f})"
            )
    peaks = [peak for alternative in alternatives.values() for peak in alternative.peaks]
    lowest, median, highest = (figure / 1e9 for figure in (min(peaks), statistics.median(peaks), max(peaks)))
    print(f"the peak: {median:.0f} GFLOP/s in square matrix products ({lowest:.0f} to {highest:.0f})")
    if target := TARGETS.get((shape.length, shape.rows)):
        print(f"targets: {target[0]:.2f}x transformers, {target[1]:.2f}x plain, {target[2]:.0%} of the peak")
    if (shape.length, shape.rows) == (1024, 2):
        print(f"target: {MEMORY_TARGET}x of the memory of transformers")


def threads_of(clock: Clock) -> str:
    counted = f"{torch.get_num_threads()} threads"
    return counted if clock is time.perf_counter else "one thread's seconds on the processor"


def matrix_peak(clock: Clock, *, size: int = 2048, seconds: float = 1.0) -> float:
    """FLOP/s of square matrix products over so many seconds."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    torch.mm(a, b, out=out)
    products, started = 0, clock()
    while clock() - started < seconds:
        torch.mm(a, b, out=out)
        products += 1
    return 2 * size**3 * products / (clock() - started)


def show_tiny(rounds: int, clock: Clock) -> None:
    """The model of the quickstart, with the data and the batches of its plan."""
    shape = Shape("test_runner", 128, 8, None)
    forms: tuple[LossForm, ...] = ("auto", "plain")
    steps = [trained_step(shape.model(), TrainConfig(batch_size=8, mini_batch_size=8, loss=form)) for form in forms]
    speeds: list[list[float]] = []
    for batch in batches(
        shape.text(), first_row=0, end_row=8 * 10 * (rounds + 1), batch_size=8, piece_size=8, device=CPU
    ):
        speeds.append([])
        for step in steps:
            started = clock()
            step(batch, LR)
            speeds[-1].append(batch.num_targets / (clock() - started))
    own = statistics.median(own for own, _ in speeds[10:])
    ratio = statistics.median(own / plain for own, plain in speeds[10:])
    print(
        f"\ntest_runner, 8 rows of 128 tokens, {threads_of(clock)}: {own:.0f} tokens/s, "
        f"{ratio:.2f}x of all logits at once"
    )


if __name__ == "__main__":
    main()
