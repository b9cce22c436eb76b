"""Memory that did not suffice: recognised in every guise, and answered with smaller pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

# What torch's allocator of the host says; there is no class for it.
_HOST = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")


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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [error.__class__.__name__])[0]
