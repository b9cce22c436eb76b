"""Several processes train a run as one would: gradients, losses, what is asked of them, and what becomes of them."""

from __future__ import annotations

import json
import math
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lmplay.data import Batch, open_stage
from lmplay.modules.losses import IGNORE
from lmplay.plans import parse_plan
from lmplay.runs import read_status, request
from lmplay.train.feed import to_device
from lmplay.train.parallel.place import Place, environment_of
from lmplay.train.parallel.share import Share
from lmplay.train.parallel.world import World
from tests.train.reading import events, rows, wait_until

NewRun = Callable[..., Path]
SCRIPT = str(Path(__file__).with_name("forked_ranks.py"))
NO_DROPOUT = tuple(f"model.{name}_dropout=0.0" for name in ("attn", "ff", "embed"))
QUICK = ("train.sequence_length=8", "train.save_interval=8", "train.sample_tokens=2", "train.validation_interval=20")
ODD = ("train.batch_size=5", "train.mini_batch_size=2")  # does not divide by the number of processes


def figures(run: Path) -> dict[tuple[str, int], tuple[float, ...]]:
    names = ("loss", "grad_norm", "lr", "tokens", "accuracy")
    return {
        (kind, step): tuple(row[name] for name in names if name in row)
        for kind in ("train", "validate")
        for step, row in rows(run, kind).items()
    }


def assert_same_course(run: Path, reference: Path) -> None:
    """The same steps with the same figures, but for the last bits of sums; and so the same model."""
    ours, theirs = figures(run), figures(reference)
    assert ours.keys() >= theirs.keys()  # where a limit ended the run for a while, it was validated once more
    for key in theirs:
        assert ours[key] == pytest.approx(theirs[key], rel=2e-4), key
        assert ours[key][0] == pytest.approx(theirs[key][0], rel=1e-6), key
    ours, theirs = (load_file(each / "checkpoints/latest/model.safetensors") for each in (run, reference))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def start_ranks(
    workers: Any, run: Path, size: int, *, in_all: dict[str, Any] | None = None, **faults_of_last: Any
) -> list[BaseProcess]:
    """All processes of a run, as torchrun would start them; the last one with something going wrong in it, or all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(size):
        place = Place(rank=rank, size=size, local_rank=rank, local_size=size)
        faults = {**(in_all or {}), **(faults_of_last if rank == size - 1 else {})}
        environment = environment_of(place, address="127.0.0.1", port=port)
        started.append(workers.start(run, environment, **faults))
    return started


def ended(processes: list[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join(90)
    return [process.exitcode for process in processes]


def run_ranks(workers: Any, run: Path, size: int, **faults: Any) -> list[int | None]:
    return ended(start_ranks(workers, run, size, **faults))


# The step


def test_gradients_of_two_processes_are_those_of_one(workers: Any, tmp_path: Path) -> None:
    given = {"size": 2, "store": str(tmp_path / "meeting"), "out": str(tmp_path / "found.pt")}
    started = [
        workers.context.Process(target=runpy.run_path, args=(SCRIPT, {**given, "rank": rank}, "__main__"))
        for rank in range(2)
    ]
    for process in started:
        process.start()
        workers.started.append(process)
    assert ended(started) == [0, 0]
    alone = runpy.run_path(SCRIPT, {}, "forked_ranks")
    for (case, spread), found in torch.load(tmp_path / "found.pt").items():
        expected = alone["gradients"](case, World())
        dtype = alone["CASES"][case][2]
        near = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-14}
        for name, grad in expected["gradients"].items():
            ours = found["gradients"][name]
            # A parameter that no row reaches has no gradient, and so neither decay nor momentum; where parameters are
            # spread, one that is reached in some process has one in all.
            if grad is None and spread:
                assert ours is None or not ours.any(), (case, name)
                continue
            assert (ours is None) == (grad is None), (case, spread, name)
            if grad is not None:
                torch.testing.assert_close(ours, grad, **near, msg=lambda text, at=(case, spread, name): f"{at} {text}")
        for name, figure in expected["figures"].items():
            torch.testing.assert_close(found["figures"][name], figure, rtol=1e-5, atol=1e-12)
        if dtype == torch.float64:
            for name, weight in expected["weights"].items():
                if spread and expected["gradients"][name] is None:
                    continue  # it decays
                torch.testing.assert_close(found["weights"][name], weight, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("count", "size", "piece_size"), [(7, 2, 2), (1, 3, 4), (8, 3, 1), (5, 5, 2)])
def test_each_row_is_in_one_share_and_all_shares_have_as_many_pieces(count: int, size: int, piece_size: int) -> None:
    tokens = np.arange(count)[:, None] * np.ones((1, 4), dtype=np.int64)
    targets = tokens.copy()
    targets[count // 2] = IGNORE  # computed by nobody
    batch = Batch(tokens=tokens, targets=targets if count > 1 else tokens, documents=None)
    shares = [
        to_device(batch, first_row=0, piece_size=piece_size, device=torch.device("cpu"), share=Share(rank, size))
        for rank in range(size)
    ]
    assert len({len(share.pieces) for share in shares}) == 1
    assert {(share.samples, share.num_targets) for share in shares} == {(count, batch.num_targets)}
    own = [
        row for share in shares for piece in share.pieces if not piece.stands_in for row in piece.targets[:, 0].tolist()
    ]
    assert [row for row in own if row != IGNORE] == [row for row in batch.targets[:, 0].tolist() if row != IGNORE]
    assert sum(piece.num_targets for share in shares for piece in share.pieces) == batch.num_targets
    assert all(bool((piece.targets != IGNORE).any()) for share in shares for piece in share.pieces)


# Whole runs


def test_run_with_two_processes_is_the_run_of_one(lmplay: Any, new_run: NewRun, workers: Any, small_plan: Any) -> None:
    one = new_run("one", sets=(*QUICK, *ODD, *NO_DROPOUT))
    assert workers.run(one) == 0
    tiny = ("model.embed_dim=8", "model.num_heads=2", "model.num_blocks=2", "model.max_len=32")
    sets = [word for key in (*tiny, *QUICK, *ODD, *NO_DROPOUT) for word in ("--set", key)]
    command = ["run", "gpt2ish", "--plan", str(small_plan()), "--device", "cpu", "--nproc", "2", "--name", "two"]
    done = lmplay(*command, *sets, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "done"
    two = one.with_name("two")
    assert_same_course(two, one)
    assert events(two, "started")[0]["processes"] == 2


def test_spread_model_under_torchrun_is_the_run_of_one(new_run: NewRun, workers: Any) -> None:
    settings = (*QUICK, *ODD, *NO_DROPOUT, "train.ema=0.5")
    one = new_run("one", sets=settings)
    assert workers.run(one) == 0
    spread = new_run("spread", sets=settings, nproc=2, shard=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "lmplay.train", str(spread)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert_same_course(spread, one)
    parts = list((spread / "checkpoints/latest/shards").iterdir())
    assert len(parts) == 2
    moments = [load_file(part)["optimizer/0/0/exp_avg"].numel() for part in parts]
    assert max(moments) < sum(moments), "each process has written its own part of the optimizer, and no more"


def test_killed_process_ends_the_run_and_it_resumes_bit_identically(new_run: NewRun, workers: Any) -> None:
    undisturbed = new_run("undisturbed", sets=(*QUICK, *ODD))  # with dropout
    assert run_ranks(workers, undisturbed, 2) == [0, 0]
    run = new_run("killed", sets=(*QUICK, *ODD))

    def kill(victim: int, *, after: int) -> None:
        processes = start_ranks(workers, run, 2, slow_step=0.2)
        wait_until(lambda: (run / "metrics.jsonl").exists() and len(rows(run)) >= after, what=f"step {after}")
        pid = processes[victim].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        assert ended([processes[1 - victim]]) == [1]
        assert time.monotonic() - killed < 30

    kill(1, after=3)
    status = read_status(run)
    assert status.state == "failed"
    assert "another process of this run has gone" in status.reason
    assert len(status.reason.splitlines()) == 1
    kill(0, after=6)
    assert read_status(run).state == "lost"

    assert run_ranks(workers, run, 2) == [0, 0]
    assert figures(run) == figures(undisturbed)
    ours, theirs = (load_file(each / "checkpoints/latest/model.safetensors") for each in (run, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_runs_go_on_with_another_number_of_processes(new_run: NewRun, workers: Any) -> None:
    settings = (*QUICK, *ODD, *NO_DROPOUT, "train.ema=0.5")
    reference = new_run("reference", sets=settings)
    assert workers.run(reference) == 0
    run = new_run("run", sets=settings)

    def go_on(size: int, *, shard: bool, steps: int | None) -> None:
        new_run("run", sets=settings, nproc=size, shard=shard, limits={"steps": steps})
        assert set(run_ranks(workers, run, size) if size > 1 else [workers.run(run)]) == {0}

    go_on(2, shard=True, steps=2)
    go_on(3, shard=True, steps=4)
    go_on(1, shard=False, steps=5)
    go_on(2, shard=True, steps=None)
    assert_same_course(run, reference)
    doubts = [event["message"] for event in events(run, "warning")]
    assert sum("the number of processes was" in doubt for doubt in doubts) == 3


# What is asked of them


def test_requests_and_signals_are_carried_out_by_all_processes_together(new_run: NewRun, workers: Any) -> None:
    run = new_run("asked", sets=(*QUICK, "train.save_interval=1000"))
    processes = start_ranks(workers, run, 2, slow_step=0.1)
    wait_until(lambda: (run / "metrics.jsonl").exists() and len(rows(run)) >= 1, what="a step")
    request(run, "pause")
    wait_until(lambda: read_status(run).state == "paused", what="the pause")
    request(run, "set", **{"train.lr": 1e-4})
    request(run, "validate")
    request(run, "sample")
    request(run, "resume")
    wait_until(lambda: len(events(run, "done")) == 5, what="five requests done")
    paused_at = events(run, "done")[0]["step"]
    wait_until(lambda: max(rows(run)) > paused_at, what="another step")
    assert rows(run)[max(rows(run))]["lr"] == pytest.approx(1e-4)
    assert processes[1].pid is not None
    os.kill(processes[1].pid, signal.SIGUSR1)  # as a scheduler may: to one that doesn't lead
    assert ended(processes) == [128 + signal.SIGUSR1] * 2
    status = read_status(run)
    assert (status.state, status.reason) == ("stopped", "SIGUSR1")
    assert (run / "checkpoints" / str(status.step)).is_dir()


def test_memory_that_fails_in_one_process_halves_the_pieces_of_all(
    new_run: NewRun, workers: Any, small_plan: Any
) -> None:
    settings = (*NO_DROPOUT, "train.batch_size=64", "train.mini_batch_size=32", "train.loss=plain")
    settings += ("train.sequence_length=32", "train.sample_tokens=0", "train.validation_interval=100000")
    run = new_run("tight", plan=small_plan(samples=128), sets=settings)
    # Of the last process: before the sum of its gradient, as there really is too little, and in the middle of it.
    statuses = run_ranks(workers, run, 2, limited_memory=500, memory_fails_in_the_sum=2)
    warned = [event["message"] for event in events(run, "warning") if "out of memory" in event["message"]]
    assert warned
    assert warned[0].startswith("out of memory with 32 samples at once: going on with 16")
    assert len(warned) >= 2, "the one in the sum"
    assert statuses == [0, 0]
    assert set(rows(run)) == {1, 2}
    assert all(math.isfinite(row["loss"]) for row in rows(run).values())


def test_bad_steps_send_all_processes_back_to_the_same_checkpoint(new_run: NewRun, workers: Any) -> None:
    settings = (*QUICK, "train.max_bad_steps=2", "train.validation_interval=1000")
    run = new_run("goes_back", sets=settings, shard=True)
    asked = json.loads((run / "run.json").read_text())
    plan = parse_plan(asked["plan"]["content"], name="small", folder=run)
    data = open_stage(plan, 0, sequence_length=8, seed=asked["seed"])
    poisoned = [data.rows(row, 1).tokens[0].tolist() for row in (20, 26)]  # one in the share of each process
    assert run_ranks(workers, run, 2, in_all={"poison": poisoned}) == [0, 0]
    assert [(event["step"], event["left_out"]) for event in events(run, "resumed")] == [(4, [[0, 20], [0, 24]])]
    assert sorted(rows(run)) == list(range(1, 9)), "ten batches, two of them left out"
    (trouble,) = events(run, "not_finite")
    assert trouble["gradients"] == ["fc.weight"], "the poison lies between the blocks and the head"
    assert [sample["row"] for sample in trouble["samples"]] == [20]


def test_model_that_throws_in_one_process_says_so_in_one_line(new_run: NewRun, workers: Any) -> None:
    run = new_run("throws", sets=QUICK)
    assert run_ranks(workers, run, 2, throw_at_step=3) == [1, 1]
    status = read_status(run)
    assert status.state == "failed"
    assert status.reason.startswith("process 1 of this run failed: ValueError: only here")
    log = (run / "worker.log").read_text().splitlines()
    assert "[1] ValueError: only here" in log
