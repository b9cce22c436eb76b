"""Rows: written whole, read whole, whatever happens between."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmplay.runs.follow import line_start_near_end
from lmplay.runs.jsonl import JsonlAppender, JsonlTail, read_last_rows


def test_rows_come_back_with_their_special_numbers(tmp_path: Path) -> None:
    appender = JsonlAppender(tmp_path / "rows.jsonl")
    appender.append([{"a": math.nan, "b": math.inf, "c": -math.inf, "d": "ä\n", "e": None}])
    text = (tmp_path / "rows.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": "NaN",
        "b": "Infinity",
        "c": "-Infinity",
        "d": "ä\n",
        "e": None,
    }
    (row,) = JsonlTail(tmp_path / "rows.jsonl").read()
    assert math.isnan(row["a"])
    assert (row["b"], row["c"], row["d"], row["e"]) == (math.inf, -math.inf, "ä\n", None)


def test_a_look_at_a_short_tail_takes_no_room_for_a_long_one(tmp_path: Path) -> None:
    appender = JsonlAppender(tmp_path / "rows.jsonl")
    appender.append({"step": step} for step in range(1000))
    tail = JsonlTail(tmp_path / "rows.jsonl")
    assert len(tail.read()) == 1000
    appender.append([{"step": 1000}])
    tracemalloc.start()
    assert tail.read() == [{"step": 1000}]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16


def test_array_numbers_are_written_as_numbers(tmp_path: Path) -> None:
    import numpy as np

    JsonlAppender(tmp_path / "rows.jsonl").append([{"loss": np.float32(0.5), "step": np.int64(3)}])
    assert (tmp_path / "rows.jsonl").read_text() == '{"loss": 0.5, "step": 3}\n'


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30), rows=st.integers(1, 20))
def test_reader_sees_whole_rows_however_the_bytes_arrive(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], rows: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    data = b"".join(json.dumps({"step": step, "text": "ü" * (step % 7)}).encode() + b"\n" for step in range(rows))
    tail, seen = JsonlTail(path), []
    with path.open("ab", buffering=0) as file:
        for cut in [*cuts, len(data)]:
            file.write(data[:cut])
            data = data[cut:]
            seen += tail.read()
    assert [row["step"] for row in seen] == list(range(rows))
    assert tail.skipped == 0


def test_torn_line_of_a_crash_is_passed_over_and_the_next_row_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "lo')
    tail = JsonlTail(path)
    assert tail.read() == [{"step": 1}]
    JsonlAppender(path).append([{"step": 2}])
    assert tail.read() == [{"step": 2}]
    assert tail.skipped == 1


def test_truncation_and_replacement_begin_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    tail = JsonlTail(path)
    assert len(tail.read()) == 2
    path.write_text('{"a": 3}\n')
    assert (tail.read(), tail.generation) == ([{"a": 3}], 1)
    (tmp_path / "new").write_text('{"a": 4}\n{"a": 5}\n')
    (tmp_path / "new").replace(path)
    assert (tail.read(), tail.generation) == ([{"a": 4}, {"a": 5}], 2)
    path.unlink()
    assert (tail.read(), tail.generation) == ([], 3)
    path.write_text('{"a": 6, "longer than before": true}\n')
    assert tail.read()[0]["a"] == 6


def test_newest_rows_are_read_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in range(1000)) + '{"step": 10')
    assert [row["step"] for row in read_last_rows(path, 3, block=50)] == [997, 998, 999]
    assert len(read_last_rows(path, 5000)) == 1000
    assert read_last_rows(path, 0) == []
    assert read_last_rows(tmp_path / "none", 3) == []
    for distance in (0, 1, 13, 14, 100, 10**6):
        start = line_start_near_end(path, distance, block=7)
        data = path.read_bytes()
        assert start == 0 or data[start - 1 : start] == b"\n"
        assert start >= len(data) - distance or b"\n" not in data[start:]
    assert JsonlTail(path, offset=line_start_near_end(path, 0)).read() == []


def test_full_disk_leaves_no_part_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    appender = JsonlAppender(path)
    appender.append([{"step": 1}])
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:4]))
    with pytest.raises(OSError, match="No space left") as error:
        appender.append([{"step": 2}])
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert path.read_text() == '{"step": 1}\n'
    appender.append([{"step": 2}])
    assert [row["step"] for row in JsonlTail(path).read()] == [1, 2]


def test_long_lines_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    JsonlAppender(path).append([{"text": "x" * 2_500_000}, {"step": 2}])
    assert [len(row) for row in JsonlTail(path).read()] == [1, 1]
    short = tmp_path / "short.jsonl"
    JsonlAppender(short).append([{"step": step} for step in range(2000)])
    tail = JsonlTail(short)
    first = tail.read(limit=1000)
    assert 50 < len(first) < 200, "the limit, and at most one chunk of that size more"
    assert len(first) + len(tail.read()) == 2000


def test_many_readers_and_one_writer_see_only_whole_rows_in_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    appender = JsonlAppender(path)
    stop = threading.Event()
    faults: list[str] = []

    def read() -> None:
        tail, expected = JsonlTail(path), 0
        while not (stop.is_set() and expected == written):
            for row in tail.read():
                if row != {"step": expected, "text": "é" * (expected % 300)}:
                    faults.append(f"{row} instead of step {expected}")
                    return
                expected += 1
            time.sleep(0.001)
        if tail.skipped or tail.generation:
            faults.append(f"skipped {tail.skipped}, generation {tail.generation}")

    written = 0
    readers = [threading.Thread(target=read) for _ in range(12)]
    for reader in readers:
        reader.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        count = written % 3 + 1
        appender.append([{"step": step, "text": "é" * (step % 300)} for step in range(written, written + count)])
        written += count
        time.sleep(0.0005)
    stop.set()
    for reader in readers:
        reader.join(30)
    assert faults == []
    assert written > 100
