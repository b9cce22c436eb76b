"""`--profile N`: where the time of N steps goes, as a trace for chrome://tracing or Perfetto in the run's folder.

The first steps of a worker are left out: they ask for memory, choose kernels and compile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

SKIPPED = 2
LISTED = 20


class StepProfile:
    """`with profile.step(): ...` around each step; `announce(path, summary)` once the trace is written, `warn(problem)`
    where it cannot be: no training ends for that.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        device: torch.device,
        announce: Callable[[Path, str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._left = steps
        self._skip = SKIPPED
        self._announce = announce
        self._warn = warn
        self._profiler: profile | None = None
        self._activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        if self._left and not self._skip and self._profiler is None:
            self._profiler = profile(activities=self._activities)
            self._profiler.start()
        yield
        if self._profiler is None:
            self._skip = max(0, self._skip - 1)
            return
        self._left -= 1
        if not self._left:
            self.finish()

    def finish(self) -> None:
        """Write what was seen so far; nothing where nothing was."""
        if self._profiler is None:
            return
        seen, self._profiler, self._left = self._profiler, None, 0
        seen.stop()
        number = 1 + sum(1 for _ in self._folder.glob("trace-*.json.gz"))
        path = self._folder / f"trace-{number}.json.gz"
        by = "self_cuda_time_total" if ProfilerActivity.CUDA in self._activities else "self_cpu_time_total"
        summary = seen.key_averages().table(sort_by=by, row_limit=LISTED, max_name_column_width=50)
        try:
            self._folder.mkdir(exist_ok=True)
            seen.export_chrome_trace(str(path))
            self._announce(path, summary)
        except OSError as error:
            self._warn(f"the profile could not be written whole: {error}")
