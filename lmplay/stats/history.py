"""The figures of a run over its whole life, as arrays: the way from `metrics.jsonl` to charts and comparisons.

`History(path)` opens a run of any length; `refresh()` takes in what was added since. Rows that a crash made obsolete
are left out: whatever was logged past the checkpoint from which a worker then went on.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmplay.runs.jsonl import JsonlTail, parse_row
from lmplay.runs.layout import EVENTS, METRICS
from lmplay.stats.parse import EMPTY, Columns, Floats, column_of, concatenate, parse_chunk, recode
from lmplay.stats.side_cache import Block, SideCache

# Lines enough for a block of the side cache; also what is parsed at once, so it bounds memory.
_BLOCK_BYTES = 4 << 20
_READ_BYTES = 8 << 20
# Lines that are worth a block where somebody waits for them.
_WORTH_A_BLOCK = 256 << 10
# Pieces of a long file that are parsed at a time.
_PARSERS = min(4, os.cpu_count() or 1)


class Rows(Mapping[str, Floats]):
    """Rows of one kind, without the obsolete ones: `rows["loss"]` is an array over them, made when first asked for.

    `stage` holds each row's index into `stages` (-1 for none).
    """

    def __init__(self, parts: list[Columns], kept: NDArray[np.bool_] | None) -> None:
        self._parts = parts
        self._kept = kept
        self._length = sum(map(len, parts)) if kept is None else int(kept.sum())
        self._names = tuple(dict.fromkeys(name for part in parts for name in part.values))
        self._columns: dict[str, Floats] = {}
        self.stages = tuple(dict.fromkeys(name for part in parts for name in part.stages))

    def __getitem__(self, name: str) -> Floats:
        if name not in self._columns:
            if name not in self._names:
                raise KeyError(name)
            self._columns[name] = self._cut([column_of(part, name) for part in self._parts])
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        """The number of columns, as of any mapping; `num_rows` is that of rows."""
        return len(self._names)

    @property
    def num_rows(self) -> int:
        return self._length

    @cached_property
    def stage(self) -> NDArray[np.int64]:
        return self._cut([recode(part, self.stages) for part in self._parts]).astype(np.int64, copy=False)

    def since(self, start: int, name: str) -> Floats:
        """`column(name)[start:]`, for which only the parts that hold it are looked at."""
        if self._kept is not None or name in self._columns or name not in self._names:
            return self.column(name)[start:]
        found, wanted = [], self._length - start
        for part in reversed(self._parts):
            if wanted <= 0:
                break
            found.append(column_of(part, name)[-wanted:])
            wanted -= len(part)
        return self._joined(found[::-1])

    def column(self, name: str) -> Floats:
        """As `rows[name]`, but NaN in every row for a name that none has."""
        return self[name] if name in self._names else np.full(self._length, math.nan)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All columns at once, and `stage` as an array of names."""
        named = np.array([*self.stages, ""])[self.stage]
        return {**({"stage": named} if self.stages else {}), **dict(self.items())}

    def last(self, name: str) -> float:
        """The newest finite value; NaN when there is none."""
        values = self.column(name)
        finite = np.flatnonzero(np.isfinite(values))
        return float(values[finite[-1]]) if len(finite) else math.nan

    def frame(self) -> Any:
        """A pandas data frame with the columns in the order in which they first appear, `stage` as names."""
        import pandas

        columns: dict[str, Any] = dict(self.items())
        if self.stages:
            columns = {"stage": pandas.Categorical.from_codes(self.stage, list(self.stages)), **columns}
        return pandas.DataFrame(columns)

    def _cut(self, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        joined = self._joined(arrays)
        return joined if self._kept is None or not arrays else joined[self._kept]

    def _joined(self, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        # A copy in any case: what is mapped from the cache can't be written to, and mustn't keep its file open.
        return np.concatenate(arrays) if arrays else np.empty(0)


class History:
    """The metrics of the run in `path`, as `train` and `validate` rows. Opening reads what there is.

    `progress` is told, in the thread that reads, up to which byte of the metrics file rows have been taken in.
    """

    def __init__(self, path: Path, *, use_cache: bool = True, progress: Callable[[int], None] | None = None) -> None:
        self.path = path
        self._progress = progress
        self._cache = SideCache(path / METRICS) if use_cache else None
        self._blocks: list[dict[str, Columns]] = []
        self._fresh: list[dict[str, Columns]] = []  # not in a block yet
        self._fresh_start = 0
        self._metrics = JsonlTail(path / METRICS)
        self._events = JsonlTail(path / EVENTS)
        self._rewinds: list[tuple[int, int]] = []  # (size of the metrics file then, step gone back to)
        if self._cache is not None:
            stored = self._cache.load()
            self._blocks = [block.tables for block in stored]
            self._fresh_start = self._metrics.offset = stored[-1].end if stored else 0
        if not self.refresh():
            self._publish()

    def refresh(self) -> bool:
        """Take in what was added since; True when anything was. Also notices a file that was replaced."""
        generation, changed = self._metrics.generation, False
        for end, tables in self._read_rows():
            if self._metrics.generation != generation:
                generation = self._metrics.generation
                self._blocks, self._fresh, self._fresh_start = [], [], 0
            self._fresh.append(tables)
            changed = True
            if self._progress is not None:
                self._progress(end)
            if end - self._fresh_start >= _BLOCK_BYTES:
                self._close_block(end)
        if self._metrics.generation != generation:
            self._blocks, self._fresh, self._fresh_start = [], [], 0
            changed = True
        changed |= self._read_rewinds()
        if len(self._fresh) > 64:
            self._fresh = [_join(self._fresh)]
        if changed:
            self._publish()
        return changed

    def store(self) -> None:
        """Put what was read into the side cache, where it otherwise waits until there is enough for a block."""
        end = self._metrics.offset
        if end - self._fresh_start >= _WORTH_A_BLOCK:
            self._close_block(end)

    def _read_rows(self) -> Iterator[tuple[int, dict[str, Columns]]]:
        """What is new as (offset behind it, rows), in order; only what is being parsed is in memory."""
        chunks = self._metrics.read_chunks(size=_READ_BYTES)
        first = next(chunks, None)
        if first is None:
            return
        chunks = itertools.chain([first], chunks)
        if len(first[1]) < _READ_BYTES // 2:  # that is all, as when a run is followed
            for start, data in chunks:
                yield start + len(data), parse_chunk(data, start)
            return
        waiting: deque[tuple[int, Future[dict[str, Columns]]]] = deque()
        with ThreadPoolExecutor(_PARSERS) as pool:
            for start, data in chunks:
                waiting.append((start + len(data), pool.submit(parse_chunk, data, start)))
                if len(waiting) > _PARSERS:
                    end, rows = waiting.popleft()
                    yield end, rows.result()
            for end, rows in waiting:
                yield end, rows.result()

    def _close_block(self, end: int) -> None:
        tables = _join(self._fresh)
        if self._cache is not None:
            self._cache.append(Block(start=self._fresh_start, end=end, tables=tables))
        self._blocks.append(tables)
        self._fresh, self._fresh_start = [], end

    def _read_rewinds(self) -> bool:
        before = len(self._rewinds)
        generation = self._events.generation
        for _, lines in self._events.read_lines():
            if self._events.generation != generation:
                generation, self._rewinds, before = self._events.generation, [], -1
            for line in lines:
                row = parse_row(line) if b'"resumed"' in line else None
                if row is None or row.get("event") != "resumed":
                    continue
                place, step = row.get("metrics_bytes"), row.get("step")
                if isinstance(place, int) and isinstance(step, int):
                    self._rewinds.append((place, step))
        return len(self._rewinds) != before

    def _publish(self) -> None:
        tables = [*self._blocks, *self._fresh]
        train = [table["train"] for table in tables if len(table["train"])]
        validate = [table["validate"] for table in tables if len(table["validate"])]
        kept_train, kept_validate = _kept_rows(train, validate, self._rewinds)
        self.train, self.validate = Rows(train, kept_train), Rows(validate, kept_validate)


def _join(tables: list[dict[str, Columns]]) -> dict[str, Columns]:
    return {
        kind: concatenate([table[kind] for table in tables if len(table[kind])] or [EMPTY])
        for kind in ("train", "validate")
    }


def _kept_rows(
    train: list[Columns], validate: list[Columns], rewinds: list[tuple[int, int]]
) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Which rows still hold, for both kinds; None for all of them.

    Going back to step S makes earlier rows with a step above S obsolete. That shows in two ways: a `resumed` event says
    it, with the size of the file at that moment; and a training row of step S+1 comes after rows of that step or later.
    """
    if not train and not validate:
        return None, None
    steps = _joined(train, "step")
    offsets = _offsets(train)
    if not rewinds and bool((np.diff(steps) > 0).all()):
        return None, None
    # Each train row of step s, and each rewind to s - 1, bounds what came before it in the file: below s.
    places = np.concatenate([offsets, [place for place, _ in rewinds]])
    bounds = np.concatenate([np.nan_to_num(steps, nan=np.inf), [step + 1 for _, step in rewinds]])
    # A rewind at the very place of a row came before that row was written.
    order = np.lexsort((np.arange(len(places)) < len(offsets), places))
    places, bounds = places[order], bounds[order]
    lowest_from = np.append(np.minimum.accumulate(bounds[::-1])[::-1], np.inf)

    def kept(parts: list[Columns]) -> NDArray[np.bool_]:
        after = np.searchsorted(places, _offsets(parts), side="right")
        holds: NDArray[np.bool_] = ~(_joined(parts, "step") >= lowest_from[after])
        return holds

    return kept(train), kept(validate)


def _joined(parts: list[Columns], name: str) -> Floats:
    return np.concatenate([column_of(part, name) for part in parts]) if parts else np.empty(0)


def _offsets(parts: list[Columns]) -> NDArray[np.int64]:
    return np.concatenate([part.offsets for part in parts]) if parts else np.empty(0, np.int64)
