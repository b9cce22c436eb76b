"""Batches read ahead in the background. The order is that of the asking, whatever the number of threads.

Reading from mapped shards waits for the disk when they are not in memory: a thread waits instead of the trainer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from lmplay.data.batch import Batch


def prefetch(
    rows: Callable[[int, int], Batch], spans: Iterable[tuple[int, int]], *, depth: int = 2, workers: int = 1
) -> Generator[Batch]:
    """`rows(first, count)` for each of the spans, in order; up to `depth` batches are ready before they are asked for.

    An error of a read is raised where its batch would have come. Closing the generator ends the threads.
    """
    assert depth >= 1
    with ThreadPoolExecutor(workers, thread_name_prefix="prefetch") as threads:
        coming: deque[Future[Batch]] = deque()
        remaining = iter(spans)
        try:
            coming.extend(threads.submit(rows, first, count) for first, count in islice(remaining, depth))
            while coming:
                batch = coming.popleft().result()
                coming.extend(threads.submit(rows, first, count) for first, count in islice(remaining, 1))
                yield batch
        finally:
            for future in coming:
                future.cancel()
