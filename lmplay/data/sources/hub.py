"""Datasets of the Hugging Face hub, read by streaming: nothing but lmplay's own shards is written to the disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmplay.data.documents import Row
from lmplay.data.sources.source import Batches, batched
from lmplay.utils.errors import LMPlayError


class HubSource:
    """A dataset of the hub."""

    def __init__(self, args: Mapping[str, Any], *, split: str | None, folder: Path) -> None:
        del folder
        self._args = {key: value for key, value in args.items() if key not in ("path", "split", "revision")}
        self._path = str(args["path"])
        self._split = split or str(args.get("split", "train"))
        self._asked_revision = args.get("revision")
        self.label = self._path

    def identity(self) -> dict[str, Any]:
        from huggingface_hub import HfApi

        try:
            info = HfApi().dataset_info(self._path, revision=self._asked_revision, timeout=10)
        except Exception as error:
            raise _unreachable(self._path, error) from error
        return {
            "source": "hub",
            "path": self._path,
            "revision": info.sha,
            "split": self._split,
            "args": self._args,
        }

    def batches(self, cursor: Any | None) -> Batches:
        return batched(self._rows(int(cursor or 0)))

    def total_rows(self) -> int | None:
        return None

    def _rows(self, first: int) -> Iterator[tuple[Row, int]]:
        import datasets

        rows = datasets.load_dataset(self._path, split=self._split, streaming=True, **self._args)
        for number, values in enumerate(rows.skip(first), start=first + 1):
            yield Row(values, self._path, number), number


def _unreachable(path: str, error: Exception) -> LMPlayError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return LMPlayError(
        f"the dataset {path!r} can't be read from the Hugging Face hub ({reason[:160]}); "
        "without a network, train on the built-in text: --plan quickstart"
    )
