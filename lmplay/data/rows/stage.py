"""A stage of a plan as rows by position. What `lmplay.train` opens.

Position -> (dataset, its epoch, its row) is arithmetic (`order.py`), and row -> tokens is a read from mapped shards
(`packing.py`), so a run resumes at any position in no time, and two runs see the same bytes.
"""

from __future__ import annotations

import math
from typing import Any

from lmplay.data.batch import Batch, Progress
from lmplay.data.rows.diet import (
    Diet,
    DietSummary,
    check_not_empty,
    check_range,
    check_rows,
    content_key,
    empty_batch,
    open_parts,
)
from lmplay.data.rows.order import Mixture, derive_key
from lmplay.data.rows.packing import pack
from lmplay.plans import PackingMode, Plan, Stage


class StageData:
    """The rows of one stage, in training order."""

    def __init__(
        self, stage: Stage, diets: list[Diet], *, sequence_length: int, packing: PackingMode, key: str
    ) -> None:
        self.name = stage.name
        self.key = key
        self.sequence_length = sequence_length
        self.packing = packing
        self._diets = diets
        # Weights are shares of tokens, and rows of different datasets may hold different numbers of them.
        weights = list(stage.datasets.values())
        if packing == "stream":
            row_weights = weights  # every row is full
            tokens_per_row = float(sequence_length)
        else:
            means = [diet.packing.counts.tokens / diet.packing.num_rows for diet in diets]
            row_weights = [weight / mean for weight, mean in zip(weights, means, strict=True)]
            tokens_per_row = sum(weights) / sum(row_weights)
        self._mixture = Mixture(row_weights)
        self.rows_per_epoch = sum(diet.packing.num_rows for diet in diets)
        if stage.samples is not None:
            self.num_rows = stage.samples
        elif stage.tokens is not None:
            self.num_rows = math.ceil(stage.tokens / tokens_per_row)
        else:
            assert stage.epochs is not None
            self.num_rows = max(1, round(stage.epochs * self.rows_per_epoch))

    def rows(self, first: int, count: int) -> Batch:
        """Rows `first` to `first + count` of the stage: the same bytes whenever, and wherever, they are asked for."""
        check_range(first, count, self.num_rows)
        batch = empty_batch(count, self.sequence_length, documents=self.packing == "document")
        uses: list[list[int]] = [[] for _ in self._diets]
        places: list[list[int]] = [[] for _ in self._diets]
        for row in range(count):
            index, use = self._mixture.at(first + row)
            uses[index].append(use)
            places[index].append(row)
        for diet, of_diet, rows in zip(self._diets, uses, places, strict=True):
            diet.fill_shuffled(of_diet, batch, rows)
        return batch

    def dataset_of(self, row: int) -> str:
        """Name of the dataset that a row is of."""
        return self._diets[self._mixture.at(row)[0]].name

    def dataset_rows(self, rows: int | None = None) -> dict[str, int]:
        """How many of the first `rows` rows, of all unless given, each dataset has."""
        rows = self.num_rows if rows is None else rows
        return {diet.name: self._mixture.count(index, rows) for index, diet in enumerate(self._diets)}

    def summaries(self) -> list[DietSummary]:
        """An epoch of each dataset in numbers: rows, tokens, packing efficiency, what did not fit."""
        return [diet.summary for diet in self._diets]

    @property
    def notices(self) -> list[str]:
        """What a person should know before this stage is trained."""
        return [summary.notice for summary in self.summaries() if summary.notice is not None]

    @property
    def fill(self) -> float:
        """Packing efficiency of the stage: the share of positions that hold text and no padding."""
        rows = self.dataset_rows()
        return sum(diet.summary.fill * rows[diet.name] for diet in self._diets) / self.num_rows

    @property
    def num_tokens(self) -> int:
        """Tokens of text in all rows of the budget."""
        return round(self.fill * self.num_rows * self.sequence_length)

    @property
    def figures(self) -> dict[str, Any]:
        """The stage in numbers, as a run writes them down when it begins."""
        epochs = {
            diet.name: rows / diet.packing.num_rows
            for diet, rows in zip(self._diets, self.dataset_rows().values(), strict=True)
        }
        return {
            "rows": self.num_rows,
            "row_tokens": self.sequence_length,
            "packing": self.packing,
            "fill": self.fill,
            "epochs": epochs,
        }


def open_stage(
    plan: Plan,
    index: int,
    *,
    sequence_length: int,
    packing: PackingMode = "stream",
    seed: int = 0,
    progress: Progress | None = None,
) -> StageData:
    """Rows of stage number `index` of a plan. Datasets that are not prepared yet are prepared now.

    The order depends on the plan's seed, `seed`, the stage's number, the dataset and the epoch, and on nothing else.
    """
    check_rows(packing, sequence_length)
    stage = plan.stages[index]
    diets = []
    for name in stage.datasets:
        training, _ = open_parts(plan, name, progress)
        rows = pack(training, packing, sequence_length, ring=True)
        diets.append(Diet(name, training, rows, sequence_length, key=derive_key(plan.seed, seed, index, name)))
        check_not_empty(diets[-1])
    key = content_key(
        stage=stage.model_dump(include={"datasets", "epochs", "tokens", "samples"}, exclude_none=True),
        parts={diet.name: diet.part.key for diet in diets},
        order=[plan.seed, seed, index],
        rows=[packing, sequence_length],
    )
    return StageData(stage, diets, sequence_length=sequence_length, packing=packing, key=key)
