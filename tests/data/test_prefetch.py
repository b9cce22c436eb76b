"""Prefetching: the order of the asking, for any number of threads, errors where they belong, no thread left behind."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=25)
@given(
    packing=st.sampled_from(["stream", "document", "pad"]),
    first=st.integers(0, 900),
    batch_size=st.integers(1, 40),
    depth=st.integers(1, 5),
    workers=st.integers(1, 4),
)
def test_any_workers_after_any_seek_see_the_same_bytes(
    packing: Any, first: int, batch_size: int, depth: int, workers: int
) -> None:
    """The plain way: one row at a time, by a stage that has read nothing before."""
    stage, again = (open_stage(load_plan("quickstart"), 0, sequence_length=32, packing=packing) for _ in range(2))
    spans = [(first + n * batch_size, batch_size) for n in range(3)]
    read = list(prefetch(stage.rows, spans, depth=depth, workers=workers))
    for row in range(3 * batch_size):
        batch, expected = read[row // batch_size], again.rows(first + row, 1)
        assert np.array_equal(batch.tokens[row % batch_size], expected.tokens[0])
        assert np.array_equal(batch.targets[row % batch_size], expected.targets[0])
        if batch.documents is not None:
            assert expected.documents is not None
            assert np.array_equal(batch.documents[row % batch_size], expected.documents[0])


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
