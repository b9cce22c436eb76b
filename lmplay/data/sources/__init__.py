"""Sources: where rows come from. Each kind in a file of its own, imported when a plan asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmplay.data.sources.source import Source
from lmplay.plans import DatasetSpec

__all__ = ["Source", "open_source"]


def open_source(spec: DatasetSpec, *, columns: Sequence[str], split: str | None, folder: Path) -> Source:
    """The source of a dataset, of which `columns` will be read.

    `split` replaces the one of the plan; relative paths start from `folder`.
    """
    source = _open(spec, columns=columns, split=split, folder=folder)
    if spec.document_start is not None:
        from lmplay.data.sources.joined import JoinedSource

        return JoinedSource(source, columns[0], spec.document_start)
    return source


def _open(spec: DatasetSpec, *, columns: Sequence[str], split: str | None, folder: Path) -> Source:
    if spec.source == "builtin":
        from lmplay.data.sources.builtin import BuiltinSource

        return BuiltinSource(spec.args["name"], split=split)
    if spec.source == "hub":
        from lmplay.data.sources.hub import HubSource

        return HubSource(spec.args, columns=columns, split=split, folder=folder)
    if spec.source == "python":
        from lmplay.data.sources.python import PythonSource

        return PythonSource(spec.args, split=split)
    from lmplay.data.sources.files import FileSource

    return FileSource(spec.source, spec.args, columns=columns, split=split, folder=folder)
