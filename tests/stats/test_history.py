"""Histories: equal to a plain reading of the lines, with and without the cache, while they grow, after crashes."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmplay.runs import Run, RunWriter, create_run
from lmplay.stats import apart as apart_module
from lmplay.stats import even_lines
from lmplay.stats import history as history_module
from lmplay.stats import parse as parse_module
from lmplay.stats.apart import begin_reading, open_history
from lmplay.stats.even_lines import parse_even_lines
from lmplay.stats.history import History
from lmplay.stats.parse import parse_chunk, parse_rows, split_lines
from lmplay.stats.side_cache import SideCache


@pytest.fixture
def run(runs_folder: Path) -> Path:
    return create_run("fake", name="one", root=runs_folder)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "_BLOCK_BYTES", 2000)
    monkeypatch.setattr(history_module, "_READ_BYTES", 3000)


def train_row(step: int, loss: float | str | None = None, **more: Any) -> dict[str, Any]:
    position = {"step": step, "samples": step * 8, "tokens": step * 64, "time": step / 10}
    return {
        "kind": "train",
        "stage": "first" if step < 60 else "second",
        **position,
        "loss": loss or 9 - step / 100,
        **more,
    }


def write_lines(run: Path, rows: list[dict[str, Any]]) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def steps(history: History) -> list[float]:
    return list(history.train.column("step"))


def test_history_holds_what_the_lines_say(run: Path) -> None:
    write_lines(run, [train_row(step) for step in range(1, 101)])
    write_lines(run, [{"kind": "validate", "stage": "second", "step": 100, "loss": 8.5, "accuracy": 0.1}])
    history = History(run)
    assert steps(history) == list(range(1, 101))
    assert history.train["loss"][9] == 8.9
    assert history.train.stages == ("first", "second")
    assert [history.train.stages[code] for code in history.train.stage[57:60]] == ["first", "first", "second"]
    assert dict(history.validate.items())["accuracy"] == [0.1]
    assert history.validate.arrays()["stage"][0] == "second"
    assert "accuracy" not in history.train
    assert np.isnan(history.train.column("accuracy")).all()


def test_second_opening_comes_from_the_cache_and_is_equal(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(run, [train_row(step, lr=1e-3, note="text") for step in range(1, 201)])
    first = History(run)
    parsed: list[int] = []
    monkeypatch.setattr(
        history_module, "parse_chunk", lambda data, start: parsed.append(len(data)) or parse_chunk(data, start)
    )
    second = History(run)
    assert sum(parsed) < 4000 < (run / "metrics.jsonl").stat().st_size
    for name in first.train:
        np.testing.assert_array_equal(first.train[name], second.train[name])
    np.testing.assert_array_equal(first.train.stage, second.train.stage)
    write_lines(run, [train_row(201)])
    assert second.refresh()
    assert not second.refresh()
    assert steps(second) == list(range(1, 202))
    second.train["loss"][0] = 0.0  # an array of one's own


@pytest.mark.parametrize("damage", ["replaced", "shortened", "cut cache", "nonsense cache", "unfinished block"])
def test_cache_that_does_not_fit_is_made_anew(run: Path, damage: str) -> None:
    write_lines(run, [train_row(step) for step in range(1, 201)])
    assert len(History(run).train["step"]) == 200
    cache = SideCache(run / "metrics.jsonl").path
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    expected = 200
    if damage == "replaced":
        (run / "metrics.jsonl").write_text("".join(lines).replace('"loss": 8.99', '"loss": 7.77'))
    elif damage == "shortened":
        (run / "metrics.jsonl").write_text("".join(lines[:50]))
        expected = 50
    elif damage == "cut cache":
        cache.write_bytes(cache.read_bytes()[:-7])
    elif damage == "nonsense cache":
        cache.write_bytes(b"LMHIST01BLCK\xff\xff\xff\x7f nonsense")
    else:
        cache.write_bytes(cache.read_bytes() + b"BLCK\x02\x00\x00\x00{}")
    for _ in range(2):
        history = History(run)
        assert steps(history) == list(range(1, expected + 1))
        assert history.train["loss"][0] == (7.77 if damage == "replaced" else 8.99)


def test_file_replaced_under_an_open_history_is_noticed(run: Path) -> None:
    write_lines(run, [train_row(step) for step in range(1, 101)])
    history = History(run)
    (run / "metrics.jsonl").unlink()
    assert history.refresh()
    assert steps(history) == []
    write_lines(run, [train_row(step) for step in range(1, 11)])
    assert history.refresh()
    assert steps(history) == list(range(1, 11))


def test_rows_of_a_crash_are_hidden_at_once_and_after_the_resume(run: Path) -> None:
    with RunWriter(run) as writer:
        writer.metrics(*(train_row(step) for step in range(1, 31)))
        writer.metrics({"kind": "validate", "step": 20, "loss": 8.0}, {"kind": "validate", "step": 30, "loss": 7.0})
    history = History(run)
    with RunWriter(run) as writer:
        writer.resumed(20)
        assert history.refresh()
        assert steps(history) == list(range(1, 21))
        assert list(history.validate["step"]) == [20]
        writer.metrics(*(train_row(step, 1.0) for step in range(21, 26)))
        writer.metrics({"kind": "validate", "step": 25, "loss": 6.0})
    assert history.refresh()
    for reader in (history, History(run)):
        assert steps(reader) == list(range(1, 26))
        assert set(reader.train["loss"][20:]) == {1.0}
        assert list(reader.validate["loss"]) == [8.0, 6.0]


def test_going_back_shows_without_its_event(run: Path) -> None:
    write_lines(run, [train_row(step) for step in (1, 2, 3, 4, 5, 3, 4)])
    assert steps(History(run)) == [1, 2, 3, 4]


@settings(max_examples=30, deadline=None)
@given(plan=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9), st.booleans()), max_size=6))
def test_hidden_rows_equal_those_of_a_plain_replay(tmp_path_factory: pytest.TempPathFactory, plan: list[Any]) -> None:
    """Each entry: train so many steps, go back so far, and whether an event says so."""
    run = create_run("fake", name="one", root=tmp_path_factory.mktemp("runs"))
    expected: list[tuple[int, float]] = []
    step, serial = 0, 0.0
    with RunWriter(run) as writer:
        for forward, back, says_so in plan:
            for _ in range(forward):
                step, serial = step + 1, serial + 1
                writer.metrics({"kind": "train", "step": step, "loss": serial})
                expected = [row for row in expected if row[0] < step] + [(step, serial)]
            step = max(0, step - back)
            if says_so:
                writer.resumed(step)
                expected = [row for row in expected if row[0] <= step]
    rows = History(run).train
    assert list(zip(rows.column("step"), rows.column("loss"), strict=True)) == expected


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"step": st.integers(0, 2**40)},
            optional={
                "kind": st.sampled_from(["train", "validate", "other"]),
                "stage": st.sampled_from(["a", "ä b", ""]),
                "loss": st.one_of(st.floats(), st.none(), st.integers(-5, 5)),
                "flag": st.booleans(),
                "text": st.text(max_size=5) | st.sampled_from(["a, b", "{", "1", "NaN", "-Infinity"]),
                "a key": st.integers(0, 3),
            },
        ),
        min_size=1,
        max_size=30,
    ),
    torn=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 80)), max_size=2),
)
def test_fast_and_careful_readers_agree(rows: list[dict[str, Any]], torn: list[tuple[int, int]]) -> None:
    from lmplay.utils.files import to_json

    written = [to_json(row).encode() for row in rows]
    for index, length in torn:
        written[index % len(rows)] = written[index % len(rows)][:length]
    data = b"".join(line + b"\n" for line in written)
    careful = parse_rows(split_lines(data, 7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(even_lines, "_FEW", 1)
        fast = parse_even_lines(data, 7)
    if fast is None:
        return
    for kind, expected in careful.items():
        found = fast[kind]
        assert list(found.offsets) == list(expected.offsets)
        for index, (one, other) in enumerate(zip(found.stage, expected.stage, strict=True)):
            assert (one < 0) == (other < 0)
            assert one < 0 or found.stages[one] == expected.stages[other], index
        for name in {*found.values, *expected.values}:
            blank = np.full(len(expected), math.nan)
            np.testing.assert_array_equal(found.values.get(name, blank), expected.values.get(name, blank))


def test_rows_are_read_piece_by_piece_in_little_more_room_than_their_figures_take() -> None:
    rows = [{**train_row(step, step / 7), "stage": "a" if step < 2000 else "b"} for step in range(4000)]
    rows[3000] |= {"late": 1.0}
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    tracemalloc.start()
    found = parse_chunk(data, 7)["train"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20  # all rows as objects of Python took seven
    at_once = parse_rows(split_lines(data, 7))["train"]
    assert (found.stages, list(found.values)) == (at_once.stages, list(at_once.values))
    np.testing.assert_array_equal(found.offsets, at_once.offsets)
    np.testing.assert_array_equal(found.stage, at_once.stage)
    for name, column in at_once.values.items():
        np.testing.assert_array_equal(found.values[name], column)


def test_lines_as_a_worker_writes_them_are_read_as_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shapes of training rows, as when a run goes on with more figures, some of the rows with a mark or NaN."""
    rows: list[dict[str, Any]] = []
    for step in range(1, 2001):
        more = {"noise_scale": step / 3} if step > 1500 else {}
        rows.append(train_row(step, "NaN" if step == 7 else step / 7, **more))
        if step % 100 == 0:
            rows[-1]["skipped"] = True
            rows.append({"kind": "validate", "stage": "s", "step": step, "samples": 8, "loss": 1e-7})
    rows[50]["loss"] = "Infinity"
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    one_by_one: list[int] = []
    monkeypatch.setattr(even_lines, "parse_rows", lambda lines: one_by_one.append(len(lines)) or parse_rows(lines))
    fast, careful = parse_even_lines(data, 7), parse_rows(split_lines(data, 7))
    assert fast is not None
    assert sum(one_by_one) <= 64
    for kind, expected in careful.items():
        np.testing.assert_array_equal(fast[kind].offsets, expected.offsets)
        assert [fast[kind].stages[code] for code in fast[kind].stage] == [expected.stages[c] for c in expected.stage]
        assert set(fast[kind].values) == set(expected.values)
        for name, column in expected.values.items():
            np.testing.assert_array_equal(fast[kind].values[name], column)


@pytest.mark.parametrize("fails", [False, True])
def test_a_long_run_is_read_in_a_process_of_its_own(run: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    monkeypatch.setattr(history_module, "_READ_BYTES", 8 << 20)
    lines = b"".join(json.dumps(train_row(step, step / 7)).encode() + b"\n" for step in range(1, 30_001))
    (run / "metrics.jsonl").write_bytes(lines)
    assert len(lines) > parse_module.LARGE
    here: list[int] = []
    monkeypatch.setattr(
        history_module, "parse_chunk", lambda data, start: here.append(len(data)) or parse_chunk(data, start)
    )
    if fails:
        monkeypatch.setattr("sys.executable", "/bin/false")
    told: list[int] = []
    history = open_history(run, told.append)
    assert steps(history) == list(range(1, 30_001))
    assert told[-1] == len(lines)
    assert sum(here) == (len(lines) if fails else 0)
    write_lines(run, [train_row(30_001)])
    assert history.refresh()
    assert steps(open_history(run)) == list(range(1, 30_002))


def test_a_reader_that_was_begun_before_is_the_one_that_is_waited_for(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert begin_reading(run) is None, "a short run isn't worth a process"
    monkeypatch.setattr(apart_module, "_WORTH_A_START", 1 << 20)
    lines = b"".join(json.dumps(train_row(step, step / 7)).encode() + b"\n" for step in range(1, 30_001))
    (run / "metrics.jsonl").write_bytes(lines)
    reader = begin_reading(run)
    assert reader is not None
    monkeypatch.setattr("sys.executable", "/bin/false")  # another one would fail
    monkeypatch.setattr(history_module, "parse_chunk", lambda data, _: pytest.fail(f"{len(data)} bytes are read here"))
    told: list[int] = []
    assert steps(open_history(run, told.append, reader=reader)) == list(range(1, 30_001))
    assert told[-1] == len(lines)


def test_torn_and_foreign_lines_are_skipped_in_large_files_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse_module, "LARGE", 1 << 18)
    random.seed(0)
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(1, 3001):
            file.write(json.dumps(train_row(step, "NaN" if step == 7 else random.random())) + "\n")
            if step == 2000:
                file.write('{"kind": "train", "step": 20\n\0\0\0\n[1]\n')
            if step == 2500:
                file.write(json.dumps(train_row(2500, "Infinity")) + "\n")
    data = (run / "metrics.jsonl").read_bytes()
    assert len(data) > 1 << 18
    found = parse_chunk(data, 0)["train"]
    assert len(found) == 3001
    assert math.isnan(found.values["loss"][6])
    assert math.isinf(found.values["loss"][2500])
    assert steps(History(run)) == list(range(1, 3001))


def test_library_gives_arrays_and_frames(run: Path) -> None:
    opened = Run.open("one")
    assert opened.metrics() == {}
    with RunWriter(run) as writer:
        writer.metrics(*(train_row(step) for step in range(1, 101)))
        writer.metrics({"kind": "validate", "stage": "second", "step": 100, "loss": 8.5})
        arrays = opened.metrics()
        assert (arrays["loss"][-1], arrays["stage"][-1]) == (8.0, "second")
        frame = opened.metrics("train", frame=True)
        assert frame.groupby("stage", observed=True)["step"].max().to_dict() == {"first": 59, "second": 100}
        assert opened.metrics("validate")["loss"].tolist() == [8.5]
        writer.status(state="running")
        assert (opened.status.step, opened.status.stage) == (100, "second")


def test_reading_runs_needs_neither_numpy_nor_torch() -> None:
    import subprocess
    import sys

    code = "import sys, lmplay.runs; print([name for name in ('numpy', 'torch', 'pandas') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
