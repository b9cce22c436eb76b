"""The held-out part of a plan as rows: the same for every model and every seed. What `lmplay.train` opens."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lmplay.data.batch import IGNORED, Batch, Progress
from lmplay.data.rows.diet import Diet, check_range, check_rows, content_key, empty_batch, open_held_out
from lmplay.data.rows.packing import pack
from lmplay.data.text.tokens import token_sizes
from lmplay.plans import PackingMode, Plan

_ROWS_AT_ONCE = 64


class ValidationData:
    """The held-out documents of all datasets of a plan, in their order. May have no rows."""

    def __init__(self, diets: list[Diet], *, sequence_length: int, packing: PackingMode, key: str) -> None:
        self.key = key
        self.sequence_length = sequence_length
        self.packing = packing
        self._diets = diets
        self._ends = np.cumsum([diet.packing.num_rows for diet in diets], dtype=np.int64)
        self.num_rows = int(self._ends[-1]) if diets else 0

    def rows(self, first: int, count: int) -> Batch:
        """Rows `first` to `first + count`."""
        check_range(first, count, self.num_rows)
        batch = empty_batch(count, self.sequence_length, documents=self.packing == "document")
        for row in range(count):
            index = int(np.searchsorted(self._ends, first + row, side="right"))
            packing = self._diets[index].packing
            packing.fill(first + row - int(self._ends[index]) + packing.num_rows, 0, batch, row)
        return batch

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """The rows of each dataset, from the first to the last + 1."""
        ends = self._ends.tolist()
        return {diet.name: (end - diet.packing.num_rows, end) for diet, end in zip(self._diets, ends, strict=True)}

    @cached_property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text that a target stands for, on average: what turns loss into bits per byte."""
        num_bytes = num_targets = 0
        for diet in self._diets:
            sizes = token_sizes(diet.part.store.manifest.tokenizer)
            start, stop = self.parts[diet.name]
            for first in range(start, stop, _ROWS_AT_ONCE):
                targets = self.rows(first, min(_ROWS_AT_ONCE, stop - first)).targets
                targets = targets[targets != IGNORED]
                num_bytes += int(sizes[targets].sum())
                num_targets += targets.size
        return num_bytes / max(1, num_targets)


def open_validation(
    plan: Plan, *, sequence_length: int, packing: PackingMode = "stream", progress: Progress | None = None
) -> ValidationData:
    """The fixed held-out part of all datasets that the plan's stages use.

    It has no rows where every dataset is a single document, of which nothing could be held out.
    """
    check_rows(packing, sequence_length)
    diets = []
    for name in plan.datasets:
        if any(name in stage.datasets for stage in plan.stages):
            held = open_held_out(plan, name, progress)
            rows = pack(held, packing, sequence_length, ring=False)
            if rows.num_rows:
                diets.append(Diet(name, held, rows, sequence_length, key=0))
    key = content_key(parts={diet.name: diet.part.key for diet in diets}, rows=[packing, sequence_length])
    return ValidationData(diets, sequence_length=sequence_length, packing=packing, key=key)
