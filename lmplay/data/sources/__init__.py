"""Sources: where rows come from. Each kind in a file of its own, imported when a plan asks for it."""

from __future__ import annotations

from pathlib import Path

from lmplay.data.sources.source import Batches, RowBatch, Source, batched
from lmplay.plans import DatasetSpec
from lmplay.utils.errors import LMPlayError

__all__ = ["Batches", "RowBatch", "Source", "batched", "open_source"]


def open_source(spec: DatasetSpec, *, split: str | None, folder: Path) -> Source:
    """The source of a dataset. `split` replaces the one of the plan; relative paths start from `folder`."""
    if spec.source == "builtin":
        from lmplay.data.sources.builtin import BuiltinSource

        return BuiltinSource(spec.args["name"])
    if spec.source == "hub":
        from lmplay.data.sources.hub import HubSource

        return HubSource(spec.args, split=split, folder=folder)
    raise LMPlayError(f"sources of the kind {spec.source!r} are not there yet")
