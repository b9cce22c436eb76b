"""How hard the machine works: the rows of `system.jsonl`, taken by the worker's heartbeat."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import psutil


class SystemSampler:
    """Takes one row at a time; CPU use is that since the sample before. GPU figures where NVML answers."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        psutil.cpu_percent()
        self._nvml = _open_nvml()

    def sample(self) -> dict[str, Any]:
        """Bytes for memory, percent for use (of one core for the process, of all for the machine), degrees, watts."""
        memory = psutil.virtual_memory()
        row: dict[str, Any] = {
            "process_memory": self._process.memory_info().rss,
            "process_cpu": self._process.cpu_percent(),
            "cpu": psutil.cpu_percent(),
            "memory_used": memory.total - memory.available,
            "memory_total": memory.total,
        }
        if self._nvml is not None:
            row["gpus"] = [_gpu_row(self._nvml, index) for index in range(self._nvml.nvmlDeviceGetCount())]
        return row


def _open_nvml() -> Any | None:
    """NVML's Python module (nvidia-ml-py, optional) when it is there and finds a driver."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _gpu_row(nvml: Any, index: int) -> dict[str, Any]:
    row: dict[str, Any] = {"index": index}
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError:
        return row  # a card that the system has lost; the run and its heartbeat go on
    questions: dict[str, Callable[[], Any]] = {
        "name": lambda: nvml.nvmlDeviceGetName(handle),
        "use": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "memory_used": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used,
        "memory_total": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total,
        "temperature": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "power": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    }
    for name, ask in questions.items():
        try:
            row[name] = ask()
        except nvml.NVMLError:
            row[name] = None  # not every card tells everything
    return row
