"""Which of a run's processes this one is, as the environment says in the words of torchrun. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lmplay.utils.errors import WrongUsageError


@dataclass(frozen=True, kw_only=True)
class Place:
    """Process `rank` of `size`, the `local_rank`-th of `local_size` on its machine. The first one leads, and writes."""

    rank: int
    size: int
    local_rank: int
    local_size: int


ALONE = Place(rank=0, size=1, local_rank=0, local_size=1)


def place_in(environment: Mapping[str, str] = os.environ) -> Place | None:
    """As torchrun (or whoever speaks like it) says; `None` where nobody has said anything."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", rank))
        return Place(
            rank=rank, size=size, local_rank=local_rank, local_size=int(environment.get("LOCAL_WORLD_SIZE", size))
        )
    except ValueError as error:
        raise WrongUsageError(f"RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be numbers ({error})") from error


def environment_of(place: Place, *, address: str, port: int) -> dict[str, str]:
    """What a process is told to be at `place` of the group that meets at `address`."""
    return {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_size),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }
