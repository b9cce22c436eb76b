"""TensorBoard event files in `<run>/trackers/tensorboard/`, so that `tensorboard --logdir runs` shows all runs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class TensorBoardTracker:
    """Writes events with TensorBoard's own writer, which needs neither TensorFlow nor torch."""

    def __init__(self, folder: Path) -> None:
        load: Any = importlib.import_module
        folder.mkdir(parents=True, exist_ok=True)
        self._event = load("tensorboard.compat.proto.event_pb2")
        self._summary = load("tensorboard.compat.proto.summary_pb2")
        self._tensors = load("tensorboard.util.tensor_util")
        self._writer = load("tensorboard.summary.writer.event_file_writer").EventFileWriter(str(folder))

    def log(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        found = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step, time, found)

    def text(self, name: str, text: str, *, step: int, time: float) -> None:
        metadata = self._summary.SummaryMetadata(
            plugin_data=self._summary.SummaryMetadata.PluginData(plugin_name="text"),
            data_class=self._summary.DATA_CLASS_TENSOR,
        )
        # Indented by four, Markdown shows it as it is.
        shown = "\n".join(f"    {line}" for line in text.splitlines())
        tensor = self._tensors.make_tensor_proto(np.array([shown.encode()], dtype=object))
        self._add(step, time, [self._summary.Summary.Value(tag=name, metadata=metadata, tensor=tensor)])

    def rewind(self, step: int) -> None:
        log = self._event.SessionLog(status=self._event.SessionLog.START)
        self._writer.add_event(self._event.Event(step=step + 1, session_log=log))

    def flush(self) -> None:
        self._writer.flush()  # by itself it waits two minutes

    def finish(self, *, failed: bool) -> None:  # noqa: ARG002 - event files have no such mark
        self._writer.close()

    def _add(self, step: int, time: float, values: list[Any]) -> None:
        event = self._event.Event(step=step, wall_time=time, summary=self._summary.Summary(value=values))
        self._writer.add_event(event)
