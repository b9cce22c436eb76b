"""A Python callable as a source: it returns an iterable of texts, or of rows as dictionaries.

Named as `package.module:function`, or by a name that an installed package registered in the entry-point group
`lmplay.datasets`. The key covers the callable's file, its package's version and its arguments; what it reads beyond
that it must put into the arguments, or the cache can't know.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmplay.data.batch import Progress
from lmplay.data.sources.source import Batches, batched
from lmplay.data.text.documents import Row
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.names import did_you_mean

ENTRY_POINT_GROUP = "lmplay.datasets"


class PythonSource:
    """Rows of a callable. Going on from a cursor calls it again and skips what was read."""

    def __init__(self, args: Mapping[str, Any], *, split: str | None) -> None:
        self.label = str(args["entry_point"])
        self._kwargs = dict(args.get("kwargs", {}))
        if split is not None:
            self._kwargs["split"] = split
        self._callable, self._version = _find(self.label)
        self._number = 0

    def identity(self, progress: Progress | None = None) -> dict[str, Any]:
        del progress
        try:
            file = inspect.getsourcefile(inspect.unwrap(self._callable))
        except TypeError:
            file = None
        return {
            "source": "python",
            "entry_point": self.label,
            "kwargs": self._kwargs,
            "version": self._version,
            "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None,
        }

    def refresh(self) -> None:
        """Nothing to do: the callable is called anew each time."""

    def needs_network(self) -> bool:
        return False

    def estimated_bytes(self) -> None:
        return None

    def batches(self, cursor: int | None) -> Batches:
        self._number = cursor or 0
        return batched(self._rows(), lambda: self._number)

    def progress(self) -> tuple[str, int, None]:
        return "rows", self._number, None

    def _rows(self) -> Iterator[Row]:
        try:
            found = self._callable(**self._kwargs)
            if isinstance(found, str | bytes) or not isinstance(found, Iterable):
                raise LMPlayError(f"{self.label} returned {type(found).__name__}; it must return an iterable of rows")
            for value in itertools.islice(found, self._number, None):
                self._number += 1
                if isinstance(value, str):
                    value = {"text": value}
                elif not isinstance(value, Mapping):
                    raise LMPlayError(
                        f"{self.label}, row {self._number}: a row is a text or a dictionary, not {type(value).__name__}"
                    )
                yield Row(value, self.label, self._number)
        except LMPlayError:
            raise
        except Exception as error:
            raise LMPlayError(
                f"{self.label} failed after row {self._number}: {type(error).__name__}: {error}"
            ) from error


def _find(name: str) -> tuple[Callable[..., Any], str | None]:
    """The callable, and the version of the package that registered it."""
    module_name, separator, attribute = name.partition(":")
    version = None
    try:
        if separator:
            found: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                found = getattr(found, part)
        else:
            points = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
            if name not in points:
                hint = did_you_mean(name, points) or '; name it as "package.module:function"'
                raise WrongUsageError(f"args.entry_point: no installed package registers the dataset {name!r}{hint}")
            found = points[name].load()
            distribution = points[name].dist
            version = f"{distribution.name} {distribution.version}" if distribution is not None else None
    except LMPlayError:
        raise
    except Exception as error:  # the module is the user's: anything can go wrong in it
        raise LMPlayError(f"the dataset {name!r} can't be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise LMPlayError(f"{name} is {type(found).__name__}, and a callable is needed")
    return found, version
