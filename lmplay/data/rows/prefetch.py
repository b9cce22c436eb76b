"""Batches read ahead in the background, for `lmplay.train`. The order is that of the asking, for any number of threads.

Reading from mapped shards waits for the disk when they are not in memory: a thread waits instead of the trainer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Read = TypeVar("Read")


def prefetch(
    read: Callable[[int, int], Read], spans: Iterable[tuple[int, int]], *, depth: int = 2, workers: int = 1
) -> Generator[Read]:
    """`read(first, count)` for each of the spans, in order; up to `depth` results are ready before they are asked for.

    An error of a read is raised where its batch would have come. Closing the generator ends the threads.
    """
    assert depth >= 1
    with ThreadPoolExecutor(workers, thread_name_prefix="prefetch") as threads:
        coming: deque[Future[Read]] = deque()
        remaining = iter(spans)
        try:
            coming.extend(threads.submit(read, first, count) for first, count in islice(remaining, depth))
            while coming:
                result = coming.popleft().result()
                coming.extend(threads.submit(read, first, count) for first, count in islice(remaining, 1))
                yield result
        finally:
            for future in coming:
                future.cancel()
