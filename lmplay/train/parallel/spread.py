"""How the gradient of a batch is summed over the processes that share it: by DDP, or by FSDP2 for a spread model.

Both add up; what torch does by default, dividing by the number of processes, would be wrong here: the loss is divided
by the targets of the whole batch already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from lmplay.base.base_model import LMBase
from lmplay.train.parallel.world import World
from lmplay.train.update.compiling import repeated_blocks
from lmplay.train.update.memory import OutOfMemory, as_out_of_memory
from lmplay.utils.errors import LMPlayError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket


class Summing:
    """For one process, or a model whose own hooks sum: nothing to be done."""

    def __init__(self, objective: nn.Module) -> None:
        self.objective = objective

    def held_back(self) -> AbstractContextManager[None]:
        """Inside, a piece's gradient stays in its process."""
        return contextlib.nullcontext()

    def before_summing(self) -> AbstractContextManager[None]:
        """Around all that one process can fail in before it takes part in the sum."""
        return contextlib.nullcontext()

    def while_summing(self) -> AbstractContextManager[None]:
        """Around the backward pass that sums."""
        return contextlib.nullcontext()


class ReplicaSumming(Summing):
    """The model is whole in every process: DDP sums while the backward pass of the last piece still runs."""

    def __init__(self, objective: nn.Module, world: World) -> None:
        super().__init__(objective)
        self._plain = objective
        self._world = world
        self._replicate()

    def held_back(self) -> AbstractContextManager[None]:
        assert isinstance(self.objective, DistributedDataParallel)
        held: AbstractContextManager[None] = self.objective.no_sync()
        return held

    @contextlib.contextmanager
    def before_summing(self) -> Iterator[None]:
        try:
            with self._world.together(OutOfMemory), as_out_of_memory():
                yield
        except OutOfMemory:
            self._replicate()  # DDP waits for the backward pass of a forward pass that it has seen
            raise

    @contextlib.contextmanager
    def while_summing(self) -> Iterator[None]:
        self._begun.clear()
        try:
            with self._world.together(OutOfMemory):
                try:
                    with as_out_of_memory():
                        yield
                except OutOfMemory:
                    with _no_way_back():
                        self._sum_the_rest()
                    raise
        except OutOfMemory:
            self._replicate()
            raise

    def _sum_the_rest(self) -> None:
        """Zeros for the sums in which others wait for this process; nobody uses what comes of them."""
        replica = self.objective
        assert isinstance(replica, DistributedDataParallel)
        for parameter in replica.parameters():
            parameter.grad = None  # room for the zeros
        reducer = replica.reducer
        rest = [bucket for bucket in reducer._get_zeros_like_grad_buckets() if bucket.index() not in self._begun]
        for sum_to_come in [reducer._run_comm_hook(bucket) for bucket in rest]:
            sum_to_come.wait()
        if rest:  # which parameters were reached is summed behind the last of them
            replica.process_group.allreduce(reducer._get_local_used_map()).wait()

    def _replicate(self) -> None:
        # Which parameters a batch reaches may differ from process to process, and such a model's buckets keep their
        # order from the first step on: a resumed run sums in the same order.
        replica = DistributedDataParallel(self._plain, forward_sync_buffers=False, find_unused_parameters=True)
        begun: list[int] = []  # buckets of this backward pass whose sum has begun
        replica.register_comm_hook(None, lambda _, bucket: _sum(bucket, begun))
        self.objective, self._begun = replica, begun


def _sum(bucket: GradBucket, begun: list[int]) -> Future[Tensor]:
    begun.append(bucket.index())
    work = torch.distributed.all_reduce(bucket.buffer(), async_op=True)
    summed: Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed


class ShardSumming(Summing):
    """The model is spread: each block's parameters meet for its forward and backward pass, and part again."""

    def before_summing(self) -> AbstractContextManager[None]:
        return _no_way_back()

    def while_summing(self) -> AbstractContextManager[None]:
        return _no_way_back()


@contextlib.contextmanager
def _no_way_back() -> Iterator[None]:
    """Where others wait for this process in the middle of a sum, it cannot go back to the step's beginning: it ends."""
    try:
        with as_out_of_memory():
            yield
    except OutOfMemory as error:
        raise LMPlayError(
            f"out of memory ({error}) while other processes waited for this one's part: go on with a smaller "
            "--mini-batch-size and --allow-change train.mini_batch_size"
        ) from error


def summing(objective: nn.Module, world: World) -> Summing:
    """What `TrainStep` sums with."""
    if world.size == 1:
        return Summing(objective)
    return ShardSumming(objective) if world.shard else ReplicaSumming(objective, world)


def shard(model: LMBase, world: World, device: torch.device) -> None:
    """Spread the parameters of `model` over the processes, in place, block by block (FSDP2). Names stay as they are."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (world.size,))
    for part in [*repeated_blocks(model), model]:
        fully_shard(part, mesh=mesh)
        assert isinstance(part, FSDPModule)
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)
        part.set_reduce_scatter_unused_params(True)  # a batch may reach them in another process
    for name in ("hidden", "train_loss"):
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


@contextlib.contextmanager
def apart_afterwards(model: nn.Module) -> Iterator[None]:
    """Inside, a spread model is used without a backward pass, after which its parameters would stay together."""
    try:
        yield
    finally:
        reshard: Callable[[], None] | None = getattr(model, "reshard", None)
        if reshard is not None:
            reshard()
