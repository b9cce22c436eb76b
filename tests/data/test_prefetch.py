"""Prefetching: the order of the asking, for any number of threads, errors where they belong, no thread left behind."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from lmplay.data import open_stage, prefetch
from lmplay.data.batch import Batch
from lmplay.plans import load_plan


def numbered(first: int, count: int) -> Batch:
    time.sleep(0.004 * (first % 3))  # later batches are often ready earlier
    rows = np.arange(first, first + count, dtype=np.int64)[:, None]
    return Batch(rows, rows + 1)


@pytest.mark.parametrize(("depth", "workers"), [(1, 1), (2, 1), (3, 2), (8, 5)])
def test_the_order_is_that_of_the_asking(depth: int, workers: int) -> None:
    spans = [(first, 2) for first in range(0, 60, 2)]
    batches = list(prefetch(numbered, spans, depth=depth, workers=workers))
    assert np.concatenate([batch.tokens for batch in batches])[:, 0].tolist() == list(range(60))


def test_workers_and_seeks_see_the_same_bytes() -> None:
    stage = open_stage(load_plan("quickstart"), 0, sequence_length=64)
    spans = [(first, 8) for first in range(0, 240, 8)]
    plain = [stage.rows(first, count) for first, count in spans]
    for workers in (1, 3):
        for batch, expected in zip(prefetch(stage.rows, spans, depth=4, workers=workers), plain, strict=True):
            assert np.array_equal(batch.tokens, expected.tokens)
            assert np.array_equal(batch.targets, expected.targets)
    again = open_stage(load_plan("quickstart"), 0, sequence_length=64)
    for batch, expected in zip(prefetch(again.rows, spans[17:]), plain[17:], strict=True):
        assert np.array_equal(batch.tokens, expected.tokens)


def test_an_error_comes_where_its_batch_would_have() -> None:
    def failing(first: int, count: int) -> Batch:
        if first == 4:
            raise RuntimeError("disk")
        return numbered(first, count)

    batches = prefetch(failing, [(first, 1) for first in range(9)], depth=3, workers=2)
    assert [int(next(batches).tokens[0, 0]) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="disk"):
        next(batches)


def test_closing_ends_the_threads() -> None:
    batches = prefetch(numbered, ((first, 1) for first in range(10**9)), depth=4, workers=3)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
