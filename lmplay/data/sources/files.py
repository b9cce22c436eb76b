"""Local files: `.txt`, `.md`, `.jsonl`, `.json`, `.csv`, `.parquet`, compressed ones too; by name, pattern or folder.

How files are read is in `formats`; here is which files a plan means, in which order, and where reading goes on.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmplay.data.batch import Progress
from lmplay.data.sources.compression import COMPRESSIONS, TYPICAL_RATIO, packed, plain_suffix
from lmplay.data.sources.formats import READERS, Cursor, FileReader
from lmplay.data.sources.source import Batches, batched
from lmplay.data.sources.sums import file_sums
from lmplay.data.text.documents import Row
from lmplay.plans import SourceKind
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.names import did_you_mean

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "text": (".txt", ".md", ".markdown", ".rst", ".text"),
    "json": (".jsonl", ".json", ".ndjson"),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet",),
}
"""What counts in a folder."""


class FileSource:
    """Rows of local files, file after file in the order of their names."""

    def __init__(
        self, kind: SourceKind, args: Mapping[str, Any], *, columns: Sequence[str], split: str | None, folder: Path
    ) -> None:
        self._kind = kind
        self._options = {key: value for key, value in args.items() if key not in ("data_files", "data_dir", "split")}
        self._columns = columns
        self._files, named = _chosen_files(kind, args, split or args.get("split"), folder)
        self._may_be_empty = not named
        self.label = self._files[0].name if len(self._files) == 1 else f"{self._files[0].name} and others"
        self._sizes = [file.stat().st_size for file in self._files]
        self._file = 0
        self._reader: FileReader | None = None

    def identity(self, progress: Progress | None = None) -> dict[str, Any]:
        formats = ["".join(file.suffixes[-2:]).lower() for file in self._files]
        return {
            "source": self._kind,
            "options": self._options,
            "columns": list(self._columns),
            "files": [list(pair) for pair in zip(formats, file_sums(self._files, progress), strict=True)],
        }

    def refresh(self) -> None:
        """Nothing to do: files are looked at each time."""

    def needs_network(self) -> bool:
        return False

    def estimated_bytes(self) -> int:
        sizes = zip(self._files, self._sizes, strict=True)
        return sum(size * (TYPICAL_RATIO if packed(file) else 1) for file, size in sizes)

    def batches(self, cursor: dict[str, Any] | None) -> Batches:
        start = Cursor(**cursor) if cursor is not None else Cursor()
        return batched(self._rows(start), self._cursor)

    def progress(self) -> tuple[str, int, int]:
        done = sum(self._sizes[: self._file])
        if self._reader is not None:
            done += min(self._reader.position, self._sizes[self._file])
        return "bytes", done, sum(self._sizes)

    def _rows(self, start: Cursor) -> Iterator[Row]:
        for number in range(start.file, len(self._files)):
            self._file, path = number, self._files[number]
            inside = start if number == start.file else Cursor(number)
            self._reader = READERS[self._kind](
                path, options=self._options, columns=self._columns, start=inside, alone=len(self._files) == 1
            )
            yield from self._reader.rows()
            if not self._reader.cursor.row and not self._may_be_empty:
                raise LMPlayError(f"{path} is empty")

    def _cursor(self) -> dict[str, Any]:
        assert self._reader is not None
        return self._reader.cursor._asdict()


def _chosen_files(
    kind: SourceKind, args: Mapping[str, Any], split: str | None, folder: Path
) -> tuple[list[Path], bool]:
    """(files, whether each was named and none was found by a pattern or in a folder)."""
    base = folder / Path(str(args.get("data_dir", ""))).expanduser()
    patterns = args.get("data_files")
    if isinstance(patterns, Mapping):
        wanted = split or "train"
        if wanted not in patterns:
            hint = did_you_mean(wanted, patterns) or f"; there are {', '.join(patterns)}"
            raise WrongUsageError(f"args.data_files: there is no split {wanted!r}{hint}")
        patterns = patterns[wanted]
    elif split not in (None, "train"):
        raise WrongUsageError(
            f"args.data_files: the split {split!r} needs files by split, as in "
            f'{{"train": "train.jsonl", "{split}": "{split}.jsonl"}}'
        )
    if patterns is None:
        return _inside(base, kind), False
    if isinstance(patterns, str):
        patterns = [patterns]
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns) or not patterns:
        raise WrongUsageError("args.data_files: a file or pattern is needed, a list of them, or these by split")
    files: list[Path] = []
    named = True
    for pattern in patterns:
        if "://" in pattern:
            raise WrongUsageError(
                f"args.data_files: {pattern} is no local file; download it, or use a source of the kind hub"
            )
        path = base / Path(pattern).expanduser()
        if path.is_dir():
            files += _inside(path, kind)
            named = False
        elif path.is_file():
            files.append(path)
        else:
            found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns
            files += [match for match in found if match.is_file()]
            named = False
            if not any(match.is_file() for match in found):
                neighbours = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
                raise WrongUsageError(f"args.data_files: there is no file {path}{did_you_mean(path.name, neighbours)}")
    return files, named


def _inside(folder: Path, kind: SourceKind) -> list[Path]:
    suffixes = SUFFIXES[kind]
    if not folder.is_dir():
        raise WrongUsageError(f"args.data_dir: there is no folder {folder}")
    files = sorted(file for file in folder.rglob("*") if plain_suffix(file) in suffixes and file.is_file())
    if not files:
        endings = ", ".join(suffixes)
        raise WrongUsageError(
            f"args: {folder} holds no {kind} files ({endings}, or these with {', '.join(COMPRESSIONS)})"
        )
    return files
