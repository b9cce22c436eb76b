"""`lmplay bench`: real steps in processes of their own, a table, a recommendation that can be typed."""

from __future__ import annotations

import json

import pytest

TINY = ("--set", "model.embed_dim=16", "--set", "model.max_len=16", "--seconds", "0", "--batch-size", "4")


def test_each_trial_is_measured_and_the_fastest_is_recommended(lmplay):
    done = lmplay("bench", "test_runner", *TINY, "--mini-batch-size", "1", "--mini-batch-size", "2", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    trials = facts["trials"]
    asked = [(trial["mini_batch_size"], trial["loss"]) for trial in trials]
    assert asked[:2] == [(1, "auto"), (2, "auto")]
    assert asked[2][1] == "plain"
    for trial in trials:
        assert trial["error"] is None
        assert set(trial["seconds"]) == {"data", "forward", "backward", "optimizer"}
        assert all(seconds > 0 for seconds in trial["seconds"].values())
        assert trial["tokens_per_second"] == pytest.approx(4 * 16 / sum(trial["seconds"].values()))
        assert trial["mfu"] == pytest.approx(
            facts["flops_per_token"] * trial["tokens_per_second"] / trial["matrix_flops"]
        )
        assert trial["memory"] > 50e6
    best = facts["recommendation"]
    assert best["tokens_per_second"] * 1.02 >= max(trial["tokens_per_second"] for trial in trials)
    assert best["command"].startswith("lmplay run test_runner --mini-batch-size ")
    assert "model.embed_dim=16" in best["command"]


def test_slow_arithmetic_and_unknown_switches_are_refused_before_anything_is_measured(lmplay):
    done = lmplay("bench", "test_runner", *TINY, "--precision", "tf32")
    assert done.returncode == 2
    assert "arithmetic of CUDA" in done.stderr
    done = lmplay("bench", "test_runner", *TINY, "--loss", "chunky")
    assert done.returncode == 2
    assert "chunked" in done.stderr
    done = lmplay("bench", "test_runner", *TINY, "--sequence-length", "64")
    assert done.returncode == 2
    assert "max_len=64" in done.stderr
