"""From what a person types to a folder: runs, checkpoints, and the pointers `latest` and `best`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lmplay.runs.layout import CHECKPOINTS, RUN, is_run, list_runs, runs_root
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.names import did_you_mean

MODEL = "model.json"
POINTERS = ("latest", "best")


def resolve_run(name_or_path: str | Path, *, root: Path | None = None) -> Path:
    """The folder of a run given by its name, the beginning of its name if only one has it, `last`, or a path.

    Raises `WrongUsageError`, with the nearest names, when there is none or more than one.
    """
    text = str(name_or_path)
    folder = root or runs_root()
    given = Path(text).expanduser()
    by_name = not given.is_absolute() and given.name == text and text not in ("", ".", "..")
    if by_name and is_run(folder / text):
        return folder / text
    if is_run(given):
        return given.absolute()
    runs = list_runs(folder)
    if text == "last" and runs:
        return runs[0]
    names = [run.name for run in runs]
    if by_name:
        beginning = [run for run in runs if run.name.startswith(text)]
        if len(beginning) == 1:
            return beginning[0]
        if beginning:
            some = ", ".join(sorted(run.name for run in beginning)[:3])
            raise WrongUsageError(
                f"{len(beginning)} runs begin with {text!r} ({some}{', ...' if len(beginning) > 3 else ''})"
            )
    if not by_name and given.is_dir():
        raise WrongUsageError(f"the folder {text} holds neither a run ({RUN}) nor a checkpoint ({MODEL})")
    there = f"there is no run {text!r} in {folder}"
    raise WrongUsageError(there + (did_you_mean(text, names) or ("" if names else "; there are no runs there yet")))


def resolve_checkpoint(run_or_checkpoint: str | Path, *, root: Path | None = None) -> Path:
    """The folder with `model.json` that is meant.

    Takes a path to such a folder, or a run (its `latest` checkpoint), or `RUN@best`, `RUN@latest`, `RUN@<step>`.
    """
    text = str(run_or_checkpoint)
    given = Path(text).expanduser()
    if (given / MODEL).is_file():
        return _through_link(given)
    if (
        given.name in POINTERS
        and given.parent.name == CHECKPOINTS
        and (target := read_pointer(given.parent, given.name))
    ):
        return target
    run_text, at, which = text.rpartition("@")
    run = resolve_run(run_text if at else text, root=root)
    return find_checkpoint(run, which if at else "latest")


def find_checkpoint(run: Path, which: str = "latest") -> Path:
    """The checkpoint `latest`, `best` or of a step, of a run's folder. `LMPlayError` naming those there are."""
    there = {int(path.name): path for path in list_checkpoints(run)}
    if not there:
        raise LMPlayError(
            f"the run {run.name} has no checkpoint yet: it saves one with `lmplay ctl {run.name} checkpoint`"
        )
    if which in POINTERS:
        target = read_pointer(run / CHECKPOINTS, which)
        if target is not None and (target / MODEL).is_file():
            return target
        if which == "latest":
            return there[max(there)]
        raise LMPlayError(f"the run {run.name} has no best checkpoint: use @latest or one of {_some(there)}")
    if which.isdecimal() and int(which) in there:
        return there[int(which)]
    raise WrongUsageError(f"the run {run.name} has no checkpoint {which!r}: it has {_some(there)}, @latest and @best")


def list_checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, by step; folders without a `model.json` are not among them."""
    try:
        folders = [path for path in (run / CHECKPOINTS).iterdir() if path.name.isdecimal() and (path / MODEL).is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LMPlayError(f"the checkpoints of {run.name} can't be read: {error.strerror}") from error
    return sorted(folders, key=lambda path: int(path.name))


def point_to(checkpoints: Path, pointer: str, folder_name: str) -> None:
    """Let `checkpoints/<pointer>` mean the folder so named, atomically: a relative link, or a file with the name."""
    assert pointer in POINTERS, pointer
    assert "/" not in folder_name, folder_name
    # A link can't be made over an existing one, so it is made beside and renamed; the folder keeps its name unique.
    with tempfile.TemporaryDirectory(dir=checkpoints, prefix=f".{pointer}.") as beside:
        new = Path(beside) / pointer
        try:
            new.symlink_to(folder_name, target_is_directory=True)
        except (OSError, NotImplementedError):
            new.write_text(folder_name + "\n", encoding="utf-8")
        new.replace(checkpoints / pointer)


def read_pointer(checkpoints: Path, pointer: str) -> Path | None:
    """The folder that `latest` or `best` means, whether or not it still exists; None when there is no such pointer.

    Only a folder right beside the pointer counts: a pointer that leads elsewhere is ignored.
    """
    path = checkpoints / pointer
    try:
        name = str(path.readlink()) if path.is_symlink() else path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return checkpoints / name if name and Path(name).name == name and name != ".." else None


def _through_link(path: Path) -> Path:
    """A checkpoint under its own name, so that one which `latest` leaves in a moment stays the one that was meant."""
    return path.resolve() if path.is_symlink() else path.absolute()


def _some(steps: dict[int, Path]) -> str:
    known = [str(step) for step in sorted(steps)]
    return ", ".join(known if len(known) <= 6 else [*known[:2], "...", *known[-3:]])
