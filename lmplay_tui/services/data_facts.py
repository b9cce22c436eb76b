"""What `lmplay plans` and `lmplay data` said of plans, datasets, packed rows and the token cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lmplay_tui.services.commands import CommandError, Commands

_MOST_ROWS = 200
PACKINGS = ("stream", "document", "pad")
CACHE = "cache"
"""The key of what is wrong with asking for the token cache."""


@dataclass(frozen=True, kw_only=True)
class RowKey:
    """One packed row of a plan's dataset."""

    plan: str
    dataset: str
    number: int
    packing: str
    length: int


@dataclass(frozen=True, kw_only=True)
class PackedRow:
    """What `lmplay data show --row` says of a row."""

    dataset: str
    number: int
    rows: int
    """How many rows there are under this packing."""
    packing: str
    length: int
    spans: tuple[Mapping[str, Any], ...]


def packed_row(answer: Mapping[str, Any], *, length: int) -> PackedRow:
    """The row in an answer of `lmplay data show NAME --row N --json`."""
    row = answer["row"]
    return PackedRow(
        dataset=str(answer["name"]),
        number=int(row["number"]),
        rows=int(answer["packings"][row["packing"]]["rows"]),
        packing=str(row["packing"]),
        length=length,
        spans=tuple(row["spans"]),
    )


class DataFacts:
    """Answers by what they are of; `problems` has the errors, under the same keys."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self.forget()

    def forget(self) -> None:
        """The world has changed: everything is asked anew."""
        self.costs: dict[str, Mapping[str, Any]] = {}
        """Plan -> `plans show`."""
        self.datasets: dict[tuple[str, str], Mapping[str, Any]] = {}
        """(plan, dataset) -> `data show`."""
        self.rows: dict[RowKey, PackedRow] = {}
        self.stores: list[Mapping[str, Any]] | None = None
        self.problems: dict[object, str] = {}

    def is_prepared(self, plan: str, dataset: str) -> bool:
        found = self.costs.get(plan, {}).get("datasets", ())
        return any(one.get("name") == dataset and one.get("prepared") for one in found)

    def usual_row(self, plan: str, dataset: str) -> RowKey:
        """The first row as the first stage with this dataset packs it."""
        stages = self.costs.get(plan, {}).get("stages", ())
        stage: Mapping[str, Any] = next((stage for stage in stages if dataset in stage.get("datasets", ())), {})
        return RowKey(
            plan=plan,
            dataset=dataset,
            number=0,
            packing=str(stage.get("packing") or PACKINGS[0]),
            length=int(stage.get("sequence_length") or 1024),
        )

    def last_row(self, key: RowKey) -> int | None:
        """The number of the last row that is packed like this, once any of them is known."""
        return next((row.rows - 1 for one, row in self.rows.items() if replace(one, number=key.number) == key), None)

    async def ask_costs(self, plan: str) -> None:
        answer = await self._ask(plan, "plans", "show", plan)
        if answer is not None:
            self.costs[plan] = answer

    async def ask_cache(self) -> None:
        answer = await self._ask(CACHE, "data")
        if answer is not None:
            self.stores = list(answer)

    async def ask_dataset(self, plan: str, dataset: str, length: int) -> None:
        answer = await self._ask((plan, dataset), *_show(plan, dataset, length))
        if answer is not None:
            self.datasets[(plan, dataset)] = answer

    async def ask_row(self, key: RowKey) -> None:
        row = ("--row", str(key.number), "--packing", key.packing)
        answer = await self._ask(key, *_show(key.plan, key.dataset, key.length), *row)
        if answer is not None:
            kept = list(self.rows.items())[-_MOST_ROWS:]
            self.rows = {**dict(kept), key: packed_row(answer, length=key.length)}

    async def _ask(self, key: object, *arguments: str) -> Any:
        """The answer, or None with a problem."""
        try:
            answer = await self._commands.json(*arguments)
        except CommandError as error:
            self.problems[key] = str(error)
            return None
        self.problems.pop(key, None)
        return answer


def _show(plan: str, dataset: str, length: int) -> tuple[str, ...]:
    return "data", "show", dataset, "--plan", plan, "--sequence-length", str(length)
