"""Which device and which arithmetic: `auto` chosen, impossible wishes refused before a run exists."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from lmplay.train.config import PrecisionName, TrainConfig
from lmplay.train.parallel.place import ALONE, Place
from lmplay.utils.errors import WrongUsageError

AUTOCAST_TYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wish: str, place: Place = ALONE) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. A device that isn't there is a `WrongUsageError`. Of several processes
    on a machine each has a CUDA device of its own.
    """
    if place.size > 1:
        return _device_of(place, wish)
    if wish == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise WrongUsageError(f"--device {wish}: unknown device; give auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in {"cpu", "cuda", "mps"}:
        raise WrongUsageError(f"--device {wish}: lmplay trains on cpu, cuda and mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise WrongUsageError(f"--device {wish}: there are {torch.cuda.device_count()} CUDA devices; try --device auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise WrongUsageError(f"--device {wish}: this machine has no MPS device; try --device auto")
    return device


def _device_of(place: Place, wish: str) -> torch.device:
    if wish not in {"auto", "cpu", "cuda"}:
        raise WrongUsageError(f"--device {wish}: several processes train on --device cuda, one device each, or on cpu")
    if wish == "cpu" or (wish == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if place.local_size > torch.cuda.device_count():
        raise WrongUsageError(
            f"--nproc {place.local_size}: there are {torch.cuda.device_count()} CUDA devices, and each process needs "
            "one of its own; start fewer, or give --device cpu"
        )
    device = torch.device("cuda", place.local_rank)
    torch.cuda.set_device(device)
    return device


def amp_precision(device: torch.device) -> PrecisionName:
    """What `--amp` means here: bf16 where the device computes it, fp16 on older CUDA and on MPS."""
    if device.type == "cpu":
        return "bf16"
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16"


def check_precision(precision: PrecisionName, device: torch.device, *, force: bool) -> None:
    """Refuse arithmetic that the device cannot do, or does so slowly that it must be a mistake."""
    if precision == "tf32" and device.type != "cuda":
        raise WrongUsageError("train.precision=tf32 is an arithmetic of CUDA devices; use float32 or bf16")
    if precision == "fp16" and device.type == "cpu" and not force:
        raise WrongUsageError(
            "train.precision=fp16 on a CPU overflows without need; use bf16 or float32, or insist with --force"
        )
    if precision == "bf16" and device.type == "cpu" and not force and not cpu_has_bf16_units():
        raise WrongUsageError(
            "this CPU has no bf16 units: bf16 would be many times slower than float32; "
            "leave --amp off, or insist with --force"
        )


def check_shardable(config: TrainConfig) -> None:
    """Refuse with `--shard` what a model that is spread over processes cannot do."""
    if config.precision == "fp16":
        raise WrongUsageError("--shard: fp16 needs one loss scale for all parts of the model; use bf16 or float32")
    if config.mini_batch_size == "auto":
        raise WrongUsageError(
            "--shard: train.mini_batch_size=auto cannot try sizes with processes that wait for each "
            "other; give a number"
        )


def cpu_has_bf16_units() -> bool:
    """True where matrix products in bf16 run in hardware (AVX512-BF16, AMX or Arm's BF16 extension)."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True  # Unknown: do not stand in the way.
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


@contextlib.contextmanager
def arithmetic(precision: PrecisionName, device: torch.device) -> Iterator[None]:
    """Forward passes inside run in `precision`; weights and sums stay in float32."""
    with torch.autocast(device.type, dtype=AUTOCAST_TYPES.get(precision), enabled=precision in AUTOCAST_TYPES):
        yield


def set_arithmetic(config: TrainConfig) -> None:
    """What holds for the whole process: TF32, and kernels whose results repeat. To be called before CUDA computes."""
    torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
