"""All processes of a run, as one of them sees the others: decisions made together, figures summed.

`World` itself is a run of one process: nothing to agree on, nothing imported. `joined` makes the other kind. What the
processes decide goes over the host (gloo), apart from the gradients' group (nccl on CUDA), and may take as long as a
person lets a run be paused.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from lmplay.data.rows.order import derive_key
from lmplay.train.keep.randomness import seed_everything
from lmplay.train.parallel.place import ALONE, Place
from lmplay.train.parallel.share import Share
from lmplay.train.parallel.watch import LostError, Watch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup

Value = TypeVar("Value")

# A run may be paused, or wait for room on a disk, for so long.
PATIENCE = timedelta(days=30)


class World:
    """A run of one process."""

    place = ALONE
    shard = False
    """Whether the model is spread over the processes instead of copied to each."""

    group: ProcessGroup | None = None
    """Of the host, for what coordinates itself."""

    @property
    def rank(self) -> int:
        return self.place.rank

    @property
    def size(self) -> int:
        return self.place.size

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes the run's folder."""
        return self.rank == 0

    @property
    def share(self) -> Share | None:
        """Which rows of a batch are this process's; `None` for all of them."""
        return None

    def most(self, *values: int) -> tuple[int, ...]:
        """The largest of what each process says, number by number."""
        return values

    def from_first(self, value: Value) -> Value:
        """What the first process says. Also: nobody goes on before the first one has come here."""
        return value

    def gathered(self, value: Value) -> list[Value]:
        """What each process says, in their order."""
        return [value]

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, written over `tensor`; on CUDA nobody waits for it."""
        return tensor

    def together(self, kind: type[Exception]) -> contextlib.AbstractContextManager[None]:
        """An error of this kind in one process is one in all of them, at the end of the context."""
        del kind
        return contextlib.nullcontext()

    def seed(self, seed: int) -> None:
        """Give each process random numbers of its own; the first one's are those of a run of one process."""


class Joined(World):
    """A process among others. Every method is to be called by all of them, in the same order."""

    def __init__(self, place: Place, host: ProcessGroup, *, shard: bool) -> None:
        self.place = place
        self.shard = shard
        self.group = host

    @property
    def share(self) -> Share:
        return Share(self.rank, self.size)

    def most(self, *values: int) -> tuple[int, ...]:
        said = torch.tensor(values, dtype=torch.int64)
        torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX, group=self.group)
        return tuple(said.tolist())

    def from_first(self, value: Value) -> Value:
        said: list[Any] = [value if self.is_first else None]
        torch.distributed.broadcast_object_list(said, src=0, group=self.group, device=torch.device("cpu"))
        heard: Value = said[0]
        return heard

    def gathered(self, value: Value) -> list[Value]:
        said: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(said, value, group=self.group)
        return said

    def add(self, tensor: Tensor) -> Tensor:
        torch.distributed.all_reduce(tensor)
        return tensor

    @contextlib.contextmanager
    def together(self, kind: type[Exception]) -> Iterator[None]:
        mine: Exception | None = None
        try:
            yield
        except kind as error:
            mine = error
        (failed,) = self.most(int(mine is not None))
        if mine is not None:
            raise mine
        if failed:
            raise kind("in another process of this run")

    def seed(self, seed: int) -> None:
        if self.rank:
            seed_everything(derive_key(seed, "process", self.rank) % 2**63)


@contextlib.contextmanager
def joined(
    place: Place,
    device: torch.device,
    *,
    shard: bool,
    store: Store | None = None,
    children: Sequence[subprocess.Popen[bytes]] = (),
    on_loss: Callable[[str], None] | None = None,
) -> Iterator[World]:
    """Meet the other processes at `store`, or where MASTER_ADDR and MASTER_PORT say; inside, all are there.

    Whatever ends one process ends all: `on_loss(reason)` is called in the first one shortly before it ends, should it
    hang in a call that waits for a process that has gone.
    """
    if place.size == 1:
        yield World()
        return
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if store is None:
        store, _, _ = next(rendezvous("env://", place.rank, place.size, timeout=timedelta(minutes=5)))
    watch = Watch(PrefixStore("lmplay", store), place, children, on_loss)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with watch:
        try:
            torch.distributed.init_process_group(
                backend,
                store=PrefixStore("groups", store),
                rank=place.rank,
                world_size=place.size,
                device_id=device if device.type == "cuda" else None,
            )
            host = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
            yield Joined(place, host, shard=shard)
            torch.distributed.barrier(group=host)  # nobody leaves while another still waits for its last word
        except Exception as error:
            if not _tells_of_others(error):
                raise
            raise LostError(f"{watch.why()}; the same command goes on from the last checkpoint") from error
    torch.distributed.destroy_process_group()


def _tells_of_others(error: Exception) -> bool:
    """Whether an error came of waiting for another process. Gloo has no class for its own."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in ("gloo", "Gloo", "Connection closed"))
    )
