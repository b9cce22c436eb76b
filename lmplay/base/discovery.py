"""Where experiments are found: in lmplay/exp, in the folders of `LMPLAY_EXPERIMENTS`, in installed packages.

Called by the registry (runner_list.py), which keeps what the found modules register.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmplay.base.prepared_versions import run_versions

EXPERIMENTS_PACKAGE = "lmplay.exp"  # by its name: this room stands below it and imports nothing from it
ENTRY_POINT_GROUP = "lmplay.experiments"
FOLDERS_VARIABLE = "LMPLAY_EXPERIMENTS"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A module to import for its registrations; with `problem` set, one that cannot even be tried."""

    name: str
    module: str
    file: str
    problem: str | None = None


def find_experiments() -> Iterator[Candidate]:
    """Every module that may register experiments, each tried by the caller before the next is looked for."""
    for find in (_in_exp_folder, _in_listed_folders, _in_packages):
        yield from find()


def homes() -> list[str]:
    """The folders whose modules are `lmplay.exp.*`: its own first."""
    homes: list[str] = importlib.import_module(EXPERIMENTS_PACKAGE).__path__  # type: ignore[assignment]
    return homes


def _in_exp_folder() -> Iterator[Candidate]:
    """Every `versions.py` below `lmplay/exp`."""
    yield from _below(Path(homes()[0]))


def _in_listed_folders() -> Iterator[Candidate]:
    """Every `versions.py` below the folders of `LMPLAY_EXPERIMENTS`, or in such a folder itself.

    They become modules of `lmplay.exp`, as if they had been copied there: relative imports work, and a checkpoint
    finds its model again wherever the folder is moved to.
    """
    for listed in filter(None, os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)):
        folder = Path(listed).expanduser().resolve()
        if not folder.is_dir():
            problem = f"{FOLDERS_VARIABLE} names the folder {listed}, which does not exist"
            yield Candidate(name=folder.name, module=listed, file=str(folder), problem=problem)
            continue
        is_experiment = (folder / "versions.py").is_file()
        home = folder.parent if is_experiment else folder
        if str(home) not in homes():
            homes().append(str(home))
        yield from _below(home, only=folder if is_experiment else None)


def _below(home: Path, only: Path | None = None) -> Iterator[Candidate]:
    for file in sorted((only or home).rglob("versions.py")):
        parts = file.parent.relative_to(home).parts
        if not parts or any(part.startswith((".", "_")) for part in parts):
            continue
        module = ".".join((EXPERIMENTS_PACKAGE, *parts, "versions"))
        problem = None
        if any("." in part for part in parts):
            problem = "the name of an experiment's folder must not contain a dot; rename the folder"
        elif (shadow := _found_elsewhere(module, file)) is not None:
            problem = f"another experiment has the same folder name: {shadow}; rename one of the folders"
            module = str(file)
        yield Candidate(name=".".join(parts), module=module, file=str(file), problem=problem)


def _found_elsewhere(module: str, file: Path) -> Path | None:
    """The file that `import module` would run where that is not `file`: a folder of the same name comes before it."""
    relative = Path(*module.split(".")[2:]).with_suffix(".py")
    for home in homes():
        found = Path(home) / relative
        if found.is_file():
            return None if found.samefile(file) else found
    return None


def _in_packages() -> Iterator[Candidate]:
    """The modules that installed packages name in the entry-point group `lmplay.experiments`."""
    for entry_point in sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.value):
        distribution = entry_point.dist.name if entry_point.dist is not None else "an unknown package"
        yield Candidate(name=entry_point.name, module=entry_point.module, file=f"{distribution}: {entry_point.value}")


def import_and_run(candidate: Candidate) -> str | None:
    """Import the module and run it; the error in one line, or None. A module that failed is tried anew next time.

    What it prints goes to standard error: standard output is for the answers of whoever asked.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            run_versions(importlib.import_module(candidate.module))
    except (Exception, SystemExit) as error:  # noqa: BLE001 (other people's code: whatever it raises is shown as theirs)
        return _in_one_line(error, candidate)
    return None


def _in_one_line(error: BaseException, candidate: Candidate) -> str:
    """`NameError: name 'foo' is not defined (model.py, line 3)`: the last place inside the experiment's own folder."""
    text = f"{type(error).__name__}: {error}".strip().replace("\n", " ")
    if isinstance(error, SyntaxError):  # says its place itself
        return text
    folder = str(Path(candidate.file).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(folder)]
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text
