"""Memory: how many samples fit at once (`--mini-batch-size auto`), recognising that they did not, and keeping what was
taken for the next step.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch
from torch import Tensor

from lmplay.train.feed import DeviceBatch
from lmplay.train.keep.randomness import preserved_randomness

# Of a device, so much may be in use at the peak of a step; of the host's free memory, so much may be taken.
DEVICE_SHARE = 0.9
HOST_SHARE = 0.5
# What a backward pass needs beside what the forward pass kept for it.
BACKWARD_FACTOR = 2.0
# What torch's allocator of the host says; there is no class for it.
_HOST = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")

Accumulate = Callable[[DeviceBatch], Any]
Fetch = Callable[[int], DeviceBatch]


class OutOfMemory(Exception):
    """A piece did not fit into the device's memory, or the host's."""


@contextlib.contextmanager
def as_out_of_memory() -> Iterator[None]:
    """Turn every kind of allocation failure into `OutOfMemory`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(_first_line(error)) from error
    except RuntimeError as error:
        if any(sign in str(error) for sign in _HOST):
            raise OutOfMemory(_first_line(error)) from error
        raise


def keep_freed_memory(device: torch.device) -> None:
    """On a CPU, have the C library keep what a step gives back for the next one.

    It would return every large tensor to the system, which clears each page that is taken again: a gigabyte a step of
    `gpt2ish`. glibc only; elsewhere nothing happens.
    """
    if device.type == "cpu" and (mallopt := _of_libc("mallopt")):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """What `keep_freed_memory` has kept goes to the system, for whoever asks how much is free."""
    if malloc_trim := _of_libc("malloc_trim"):
        malloc_trim(0)


# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def _of_libc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def let_go(error: BaseException | None) -> None:
    """Of what the computation that ended in `error` still holds; the error itself stays as it is."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def free_cached_memory(device: torch.device) -> None:
    gc.collect()
    give_back_freed_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def largest_piece(
    accumulate: Accumulate,
    fetch: Fetch,
    *,
    most: int,
    device: torch.device,
    state_to_come: int = 0,
    sharers: int = 1,
) -> int:
    """Samples, up to `most`, that one forward and backward pass can take at once.

    `fetch(n)` gives a batch of one piece of n real samples; `accumulate` computes its gradient. On CUDA sizes are tried
    until one does not fit, with `state_to_come` bytes left free for the optimizer; elsewhere what a sample makes the
    forward pass keep is counted, and half of the free memory may be taken by the `sharers`, processes that have it in
    common. Nothing is drawn from the training's randomness.
    """
    give_back_freed_memory()
    with preserved_randomness(device):
        if device.type == "cuda":
            return _by_trying(accumulate, fetch, most=most, device=device, state_to_come=state_to_come)
        return _by_counting(
            accumulate, fetch, most=most, free=psutil.virtual_memory().available // sharers - state_to_come
        )


def _by_trying(accumulate: Accumulate, fetch: Fetch, *, most: int, device: torch.device, state_to_come: int) -> int:
    fits, size = 1, 1
    limit = DEVICE_SHARE * torch.cuda.get_device_properties(device).total_memory - state_to_come
    while size <= most:
        torch.cuda.reset_peak_memory_stats(device)
        try:
            with as_out_of_memory():
                accumulate(fetch(size))
        except OutOfMemory:
            break
        if torch.cuda.max_memory_reserved(device) > limit:
            break
        fits = size
        size = most if size < most < 2 * size else 2 * size
    free_cached_memory(device)
    return fits


def _by_counting(accumulate: Accumulate, fetch: Fetch, *, most: int, free: int) -> int:
    if most == 1:
        return 1
    one, two = kept_bytes(accumulate, fetch(1)), kept_bytes(accumulate, fetch(2))
    a_sample = max(1, two - one) * BACKWARD_FACTOR
    return max(1, min(most, int(HOST_SHARE * free / a_sample)))


def kept_bytes(accumulate: Accumulate, batch: DeviceBatch) -> int:
    """What autograd keeps between forward and backward, each storage once."""
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        accumulate(batch)
    return sum(seen.values())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [error.__class__.__name__])[0]
