"""How wide the columns of a table are: a pure function, so that tables look alike on every screen and are tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

GAP = 2


@dataclass(frozen=True, kw_only=True)
class Column:
    """`flex` columns share what is left over; of the others, those of a higher `rank` give way first on a narrow
    screen.
    """

    key: str
    title: str = ""
    align: Literal["left", "right"] = "left"
    least: int = 3
    most: int = 40
    flex: int = 0
    rank: int = 0
    help: str = ""
    sortable: bool = False
    ends: bool = False
    """What is too long keeps both ends."""


def layout_columns(columns: Sequence[Column], needed: Sequence[int], width: int, *, gap: int = GAP) -> list[int]:
    """The width of each column, 0 for one that is left out. `needed` is what the content of each would take.

    Columns of rank 0 are always there. What doesn't fit is taken from flex columns down to their least, then columns
    are dropped by rank.
    """
    kept = [True] * len(columns)
    while True:
        wanted = [
            (column.least if column.flex else min(max(column.least, need), column.most)) if keep else 0
            for column, need, keep in zip(columns, needed, kept, strict=True)
        ]
        total = sum(wanted) + gap * max(0, sum(kept) - 1)
        droppable = [index for index, column in enumerate(columns) if kept[index] and column.rank > 0]
        if total <= width or not droppable:
            break
        kept[max(droppable, key=lambda index: (columns[index].rank, index))] = False
    spare = max(0, width - total)
    flexible = [index for index, column in enumerate(columns) if kept[index] and column.flex]
    # Round by round, so that a flex column that has enough leaves the rest to the others.
    while spare > 0 and flexible:
        share = max(1, spare // sum(columns[index].flex for index in flexible))
        for index in list(flexible):
            limit = min(max(needed[index], columns[index].least), columns[index].most)
            more = min(share * columns[index].flex, limit - wanted[index], spare)
            wanted[index] += max(0, more)
            spare -= max(0, more)
            if wanted[index] >= limit:
                flexible.remove(index)
    return wanted
