"""Importing an experiment's `versions` module without running it; `lmplay.exp` switches this on for all below it.

A person may end `lmplay/__init__.py` with `import lmplay.exp.my_experiment.versions`. Run at once, that line would load
torch for `lmplay --help`, and an error in one experiment would break `import lmplay` and with it all the others. So a
`versions` module below that package is only prepared by its import; its code runs when the registry discovers it, or
when something in it is first asked for, as in `from lmplay.exp.gpt2ish.versions import runner`.

(`importlib.util.LazyLoader` is not enough: it runs a module at a look at its `__file__` too, and the standard library's
`inspect` looks at that of every module there is, in the midst of the import of torch.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any


class VersionsLoader(SourceFileLoader):
    """Prepares a module and leaves its code to `run_versions`."""

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = PreparedVersions

    def run(self, module: ModuleType) -> None:
        module.__class__ = ModuleType
        try:
            super().exec_module(module)
        except BaseException:
            module.__class__ = PreparedVersions  # mended, it may be run again
            raise


class PreparedVersions(ModuleType):
    """A `versions` module before its code has run: a name that it doesn't have yet runs it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        run_versions(self)
        return getattr(self, name)


class VersionsFinder(MetaPathFinder):
    """Finds `<package>.<anything>.versions` as usual, with the loader above."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not (fullname.startswith(f"{self.package}.") and fullname.endswith(".versions")):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = VersionsLoader(spec.loader.name, spec.loader.path)
        return spec


def run_versions(module: ModuleType) -> None:
    """Run the code of a prepared module; nothing happens to any other. Raises whatever that code raises."""
    loader = module.__loader__
    if isinstance(module, PreparedVersions) and isinstance(loader, VersionsLoader):
        loader.run(module)


def prepare_versions_below(package: str) -> None:
    """From now on, importing a `versions` module below `package` only prepares it."""
    sys.meta_path.insert(0, VersionsFinder(package))
