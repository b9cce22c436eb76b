"""`python -m benchmarks [NAME ...]`: run the named benchmarks, or all, as they come.

Each module here with a `main(arguments)` is one; `python -m benchmarks.NAME --help` tells what can be set of it.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def main(names: list[str]) -> int:
    found = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name.startswith("_"):
            continue
        loaded = importlib.import_module(f"benchmarks.{module.name}")
        if hasattr(loaded, "main"):
            found[module.name] = loaded
    unknown = [name for name in names if name not in found]
    if unknown:
        print(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(found)}", file=sys.stderr)
        return 2
    for name in names or list(found):
        print(f"== {name}: {(found[name].__doc__ or '').splitlines()[0]}", flush=True)
        found[name].main([])
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
