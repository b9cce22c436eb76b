"""The registry of experiments: `@expose_runner` fills it, `discover` finds what there is to fill it with.

Read by the command line, by the trainer and by the checks. Importing this module imports neither torch nor any
experiment; the first look into `MODEL_RUNNERS` imports them all.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lmplay.base.discovery import Candidate, find_experiments, import_and_run
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean

if TYPE_CHECKING:
    from lmplay.base.base_runner import LMRunnerBase


Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class RunnerEntry:
    """One registered name. `place` is where it was registered, as `file:line`."""

    name: str
    description: str
    long_name: str
    module: str
    file: str
    line: int
    factory: Callable[..., LMRunnerBase]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def __call__(self, *args: Any, **kwargs: Any) -> LMRunnerBase:
        """The runner, as `get_runner` makes it."""
        runner = self.factory(*args, **kwargs)
        runner.name, runner.description = self.name, self.description
        return runner


@dataclass(frozen=True, kw_only=True)
class BrokenExperiment:
    """A module that should have registered experiments and could not; or a name that two places claim."""

    name: str
    module: str
    file: str
    error: str


class _Registry(Mapping[str, RunnerEntry]):
    """The names of all runners. The first read discovers them; a name that two places claim is in neither's hands."""

    def __init__(self) -> None:
        self._entries: dict[str, RunnerEntry] = {}
        self._broken: dict[str, BrokenExperiment] = {}  # by module
        self._claims: dict[str, BrokenExperiment] = {}  # by name
        self._lock = threading.RLock()
        self._discovered = False
        self._discovering = False

    def add(self, entry: RunnerEntry) -> None:
        with self._lock:
            other = self._entries.get(entry.name)
            if other is None or (other.module, other.place) == (entry.module, entry.place):
                self._entries[entry.name] = entry
                return
            error = f"{entry.name!r} is registered by both {other.place} and {entry.place}; rename one of them"
            if not self._discovering:
                raise WrongUsageError(error)
            # Either of the two could be the one that a person means, and the order of discovery should not decide.
            self._claims[entry.name] = BrokenExperiment(
                name=entry.name, module=entry.module, file=entry.file, error=error
            )

    def discover(self) -> None:
        with self._lock:
            if self._discovering:
                return
            self._discovering = True
            try:
                for candidate in find_experiments():
                    self._load(candidate)
                self._discovered = True
            finally:
                self._discovering = False

    def _load(self, candidate: Candidate) -> None:
        if candidate.problem is not None:
            error: str | None = candidate.problem
        else:
            error = import_and_run(candidate)
        if error is None:
            self._broken.pop(candidate.module, None)
            return
        for name in [name for name, entry in self._entries.items() if entry.module == candidate.module]:
            del self._entries[name]
        self._broken[candidate.module] = BrokenExperiment(
            name=candidate.name, module=candidate.module, file=candidate.file, error=error
        )

    def broken(self) -> list[BrokenExperiment]:
        self._ensure_discovered()
        return [*self._broken.values(), *self._claims.values()]

    def claimed_twice(self, name: str) -> str | None:
        claim = self._claims.get(name)
        return claim.error if claim else None

    def _ensure_discovered(self) -> None:
        if not self._discovered:
            self.discover()

    def __getitem__(self, name: str) -> RunnerEntry:
        self._ensure_discovered()
        if name in self._claims:
            raise KeyError(name)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._ensure_discovered()
        return iter([name for name in self._entries if name not in self._claims])

    def __len__(self) -> int:
        self._ensure_discovered()
        return len(self._entries.keys() - self._claims.keys())

    def __repr__(self) -> str:
        return f"MODEL_RUNNERS({', '.join(self)})"


_registry = _Registry()
MODEL_RUNNERS: Mapping[str, RunnerEntry] = _registry


def expose_runner(cli_name: str, description: str = "", long_name: str = "") -> Callable[[Factory], Factory]:
    """Registers the decorated factory of a runner under `cli_name`; the factory itself is returned unchanged.

    Factories may all be called `runner`. Raises `WrongUsageError` when another place has taken the name already.
    """
    caller = inspect.currentframe()
    caller = caller.f_back if caller is not None else None
    module = str(caller.f_globals.get("__name__", "")) if caller is not None else ""
    file = caller.f_code.co_filename if caller is not None else ""
    line = caller.f_lineno if caller is not None else 0

    def register(factory: Factory) -> Factory:
        _registry.add(
            RunnerEntry(
                name=cli_name,
                description=description,
                long_name=long_name or cli_name,
                module=module,
                file=file,
                line=line,
                factory=factory,
            )
        )
        return factory

    return register


def discover() -> None:
    """Look again for experiments that were added or mended since the last look; loaded ones stay as they are."""
    _registry.discover()


def broken_experiments() -> list[BrokenExperiment]:
    """What could not be loaded, each with its file and its error."""
    return _registry.broken()


def get_runner(name: str, **kwargs: Any) -> LMRunnerBase:
    """The runner of that name; `kwargs` are settings of its model.

    Raises `WrongUsageError` with the nearest known names, or with the reason why an experiment of that name is broken.
    """
    entry = MODEL_RUNNERS.get(name)
    if entry is not None:
        return entry(**kwargs)
    if claim := _registry.claimed_twice(name):
        raise WrongUsageError(claim)
    for broken in _registry.broken():
        if broken.name == name:
            raise WrongUsageError(f"the experiment {name!r} is broken: {broken.error} [{broken.file}]")
    hint = did_you_mean(name, MODEL_RUNNERS)
    raise WrongUsageError(f"no experiment is called {name!r}{hint or '; `lmplay list` shows them all'}")
