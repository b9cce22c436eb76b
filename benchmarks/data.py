"""Speed of the data room: `python -m benchmarks.data`.

- preparing a jsonl file of a hundred megabytes (reading, parsing, hashing, encoding, writing, summing) against what
  tiktoken's own batch call reaches on the same texts with the same cores, in alternation; target: at least 90%;
- memory at its highest while such a file, and one of a quarter of its size, is prepared in a process of its own: it
  does not grow with the file (a test prepares a file larger than the memory that the system lets the process have);
- the first batch of a second start with a warm cache, in a process of its own; target: under a second;
- rows a second in training order, and packing efficiency of each mode.

Figures on a shared machine wander: read the ratio, whose two sides are measured in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lmplay
from lmplay.data import open_stage
from lmplay.data.facts import dataset_facts
from lmplay.data.shards.prepare import prepare
from lmplay.data.text.tokens import usable_cores
from lmplay.plans import DatasetSpec, Plan, load_plan
from lmplay.utils import get_tokenizer

FIRST_BATCH = """
import time
started = time.perf_counter()
from lmplay.data import open_stage
from lmplay.plans import load_plan
open_stage(load_plan("code"), 0, sequence_length=1024).rows(0, 50)
print(time.perf_counter() - started)
"""


PEAK = """
import resource, sys
from pathlib import Path
from lmplay.data.shards.prepare import prepare
from lmplay.plans import DatasetSpec
prepare(DatasetSpec(source="json", args={"data_files": sys.argv[2]}), folder=Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def texts_of_stdlib(megabytes: int) -> list[str]:
    """Source files and prose that every Python carries, repeated with a mark, about a page each."""
    from lmplay.data.sources.builtin import _texts

    pages = [
        text[start : start + 4000]
        for _, text in [*_texts("stdlib"), *_texts("pydocs")]
        for start in range(0, len(text), 4000)
    ]
    found: list[str] = []
    size = 0
    while size < megabytes << 20:
        for page in pages:
            found.append(f"{len(found)} {page}")
            size += len(page)
            if size >= megabytes << 20:
                break
    return found


def measure_preparing(megabytes: int, rounds: int) -> None:
    texts = texts_of_stdlib(megabytes)
    tokenizer = get_tokenizer()
    cores = usable_cores()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "texts.jsonl")
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        os.environ["LMPLAY_CACHE"] = str(Path(folder, "cache"))
        spec = DatasetSpec(source="json", args={"data_files": path.name})
        ratios, ours, theirs = [], [], []
        for _ in range(rounds):
            started = time.perf_counter()
            # In pieces of a batch of ours: its lists of all tokens at once would need gigabytes.
            tokens = sum(
                len(ids)
                for first in range(0, len(texts), 1024)
                for ids in tokenizer.encode_ordinary_batch(texts[first : first + 1024], num_threads=cores)
            )
            theirs.append(time.perf_counter() - started)
            shutil.rmtree(Path(folder, "cache", "tokens"), ignore_errors=True)
            started = time.perf_counter()
            store = prepare(spec, folder=Path(folder))
            ours.append(time.perf_counter() - started)
            assert store.num_tokens == tokens + len(texts)
            ratios.append(theirs[-1] / ours[-1])
        speed = store.num_tokens / statistics.median(ours) / 1e6
        batch = store.num_tokens / statistics.median(theirs) / 1e6
        print(f"preparing {megabytes} MB, {store.num_tokens / 1e6:.1f}M tokens, on {cores} cores")
        print(f"  tiktoken's batch call  {batch:.2f}M tokens/s")
        print(f"  jsonl to shards        {speed:.2f}M tokens/s")
        print(f"  ratio, median (range)  {statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})")


def measure_memory(megabytes: int) -> None:
    texts = texts_of_stdlib(megabytes)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LMPLAY_CACHE"] = str(Path(folder, "cache"))
        for part in (4, 1):
            path = Path(folder, f"{part}.jsonl")
            lines = (json.dumps({"text": text}) + "\n" for text in texts[: len(texts) // part])
            with path.open("w", encoding="utf-8") as file:
                file.writelines(lines)
            program = [sys.executable, "-c", PEAK, folder, path.name]
            done = subprocess.run(program, capture_output=True, text=True, check=True)
            print(f"preparing {path.stat().st_size >> 20} MB takes {int(done.stdout) >> 10} MB of memory at the most")


def measure_opening(plan: Plan) -> None:
    stage = open_stage(plan, 0, sequence_length=1024)
    program = [sys.executable, "-c", FIRST_BATCH]
    environment = {**os.environ, "PYTHONPATH": str(Path(lmplay.__file__).parent.parent)}
    seconds = [
        float(subprocess.run(program, capture_output=True, text=True, check=True, env=environment).stdout)
        for _ in range(5)
    ]
    print(f"first batch of a warm start, imports included: {statistics.median(seconds):.2f} s")
    started = time.perf_counter()
    for first in range(0, 2000, 50):
        stage.rows(first, 50)
    rows = 2000 / (time.perf_counter() - started)
    print(f"rows of 1,024 tokens in training order: {rows:,.0f}/s, {rows * 1024 / 1e6:.1f}M tokens/s")
    facts = dataset_facts(plan, "stdlib", sequence_length=1024)
    for mode, summary in facts.packings.items():
        print(f"packing {mode}: {summary.fill:.2%} of the positions hold text")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LMPLAY_CACHE"] = folder
        measure_opening(load_plan("code"))
    measure_preparing(options.megabytes, options.rounds)
    measure_memory(options.megabytes)


if __name__ == "__main__":
    main()
