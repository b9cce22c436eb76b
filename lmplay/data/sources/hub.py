"""Datasets of the Hugging Face hub, and folders in the hub's layout, through `datasets`.

They are read by streaming, so that nothing but lmplay's own shards is written to the disk. A dataset without a
`revision` in the plan stays at the commit where this machine first met it, as a lock file would hold it: two runs a
week apart see the same text. `lmplay data prepare --refresh` moves on to the newest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmplay.data.batch import Progress
from lmplay.data.sources.source import Batches, batched
from lmplay.data.sources.sums import file_sums
from lmplay.data.text.documents import Row, no_column
from lmplay.utils.errors import LMPlayError
from lmplay.utils.files import write_atomically
from lmplay.utils.paths import cache_root

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_SECONDS = 10


class HubSource:
    """Rows of one split of a dataset."""

    def __init__(self, args: Mapping[str, Any], *, columns: Sequence[str], split: str | None, folder: Path) -> None:
        self._path = str(args["path"])
        self._local = folder / self._path if (folder / self._path).is_dir() else None
        self._split = split or str(args.get("split", "train"))
        self._revision: str | None = args.get("revision")
        self._options = {key: value for key, value in args.items() if key not in ("path", "split", "revision")}
        self._columns = list(columns)
        self.label = "/".join(filter(None, (self._path, args.get("name"))))
        self._rows_read = 0
        self._stream: Any = None
        self._known_rows: int | None = None

    def identity(self, progress: Progress | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "source": "hub",
            "split": self._split,
            "options": self._options,
            "columns": self._columns,
        }
        if self._local is not None:
            files = sorted(file for file in self._local.rglob("*") if file.is_file() and not _hidden(file, self._local))
            names = [file.relative_to(self._local).as_posix() for file in files]
            sums = file_sums(files, progress)
            return {**found, "files": [list(pair) for pair in zip(names, sums, strict=True)]}
        return {**found, "path": self._path, "revision": self._commit()}

    def needs_network(self) -> bool:
        pinned = self._pin.is_file() or (self._revision is not None and _COMMIT.fullmatch(self._revision))
        return self._local is None and not pinned

    def estimated_bytes(self) -> None:
        return None

    def batches(self, cursor: dict[str, Any] | None) -> Batches:
        return batched(self._rows(cursor), lambda: {"rows": self._rows_read, "state": self._stream.state_dict()})

    def progress(self) -> tuple[str, int, int | None]:
        return "rows", self._rows_read, self._known_rows

    def refresh(self) -> None:
        self._pin.unlink(missing_ok=True)

    def _rows(self, cursor: dict[str, Any] | None) -> Iterator[Row]:
        import datasets

        datasets.disable_progress_bars()
        datasets.logging.set_verbosity_error()
        if self._local is None:
            self._ask_hub(self._commit())  # at once without a network, where load_dataset would try for minutes
        try:
            stream = datasets.load_dataset(
                str(self._local or self._path),
                split=self._split,
                revision=None if self._local is not None else self._commit(),
                streaming=True,
                **self._options,
            )
            if stream.column_names is not None:
                for name in self._columns:
                    if name not in stream.column_names:
                        raise LMPlayError(f"{self.label}: {no_column(name, stream.column_names)}")
                stream = stream.select_columns(self._columns)
            splits = stream.info.splits or {}
            if self._split in splits:
                self._known_rows = splits[self._split].num_examples or None
            if cursor is not None:
                stream.load_state_dict(cursor["state"])
                self._rows_read = cursor["rows"]
            self._stream = stream
            for values in stream:
                self._rows_read += 1
                yield Row(values, self.label, self._rows_read)
        except LMPlayError:
            raise
        except Exception as error:  # whatever a format's reader or the network may raise
            if _is_gated(error):
                raise LMPlayError(_gated(self._path)) from error
            raise LMPlayError(f"{self.label} can't be read after row {self._rows_read}: {_one_line(error)}") from error

    def _commit(self) -> str:
        """The commit that is read: the plan's, or the one where this machine first met the dataset."""
        if self._revision is not None and _COMMIT.fullmatch(self._revision):
            return self._revision
        try:
            return str(json.loads(self._pin.read_text(encoding="utf-8"))["commit"])
        except (OSError, ValueError, KeyError):
            commit = self._ask_hub(self._revision)
            pin = {"path": self._path, "revision": self._revision, "commit": commit}
            write_atomically(self._pin, json.dumps(pin) + "\n")
            return commit

    @property
    def _pin(self) -> Path:
        name = hashlib.sha256(f"{self._path}\x00{self._revision}".encode()).hexdigest()[:16]
        return cache_root() / "hub" / f"{self._path.replace('/', '--')}-{name}.json"

    def _ask_hub(self, revision: str | None) -> str:
        """The commit of a revision, from the hub; fails within seconds where there is no network."""
        from huggingface_hub import HfApi

        try:
            commit = HfApi().dataset_info(self._path, revision=revision, timeout=_TIMEOUT_SECONDS).sha
        except Exception as error:  # httpx's, huggingface_hub's and the system's
            raise LMPlayError(_no_dataset(self._path, error)) from error
        assert commit is not None
        return commit


def _no_dataset(path: str, error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return _gated(path)
    if isinstance(error, RevisionNotFoundError):
        return f"the dataset {path!r} has no such revision; see its page for the branches there are"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"there is no dataset {path!r} on the Hugging Face hub, or it is private; check the name, "
            "or log in with: hf auth login, or set HF_TOKEN"
        )
    return (
        f"the dataset {path!r} can't be read from the Hugging Face hub ({_one_line(error)}); "
        "without a network, train on the built-in text: --plan quickstart"
    )


def _is_gated(error: BaseException | None) -> bool:
    """A gated dataset's description is open, its files are not; `datasets` wraps the refusal in errors of its own."""
    from huggingface_hub.errors import GatedRepoError

    while error is not None:
        if isinstance(error, GatedRepoError) or "is a gated dataset" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _gated(path: str) -> str:
    return (
        f"the dataset {path!r} is gated: ask for access on its page, then log in with: hf auth login, or set HF_TOKEN"
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 240 else text[:237] + "..."


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)
