"""One run in one line: what lists, filters and screens show of it, read from three small files.

A folder that can't be read is summarised too, as state `broken` with the reason, so that it never hides the others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lmplay.runs.labels import Labels, read_labels
from lmplay.runs.layout import list_runs, read_run_file
from lmplay.runs.settings import Settings, flat_config, plan_name
from lmplay.runs.status import Status, read_status
from lmplay.utils.errors import LMPlayError

BROKEN = "broken"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """How, where and with which code a run was begun."""

    command: str = ""
    host: str = ""
    commit: str = ""
    branch: str = ""
    changed: bool = False
    """Whether files differed from the commit."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What is known of a run at one moment. A workbench keeps ten thousand: what no list shows stays in `run.json`."""

    path: Path
    experiment: str = ""
    plan: str = ""
    seed: int | None = None
    created: float | None = None
    status: Status = field(default_factory=lambda: Status(state=BROKEN))
    labels: Labels = field(default_factory=Labels)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All settings under dotted keys, as `flat_config` gives them."""
    origin: Origin = field(default_factory=Origin, repr=False)
    cost: Mapping[str, Any] = field(default_factory=dict)
    """`parameters`, `training_flops_per_token` and the like, where `run.json` tells."""

    @cached_property
    def name(self) -> str:
        """Kept: a folder of ten thousand runs asks for each of them several times a tick."""
        return self.path.name

    @property
    def state(self) -> str:
        return self.status.state

    @property
    def stages(self) -> int | None:
        value = self.status.fields.get("stages")
        return value if isinstance(value, int) else None

    @property
    def fraction(self) -> float | None:
        """How much of it is done, 0 to 1, by the first total that the worker gives."""
        for unit in ("samples", "steps", "tokens"):
            total = self.status.fields.get(f"total_{unit}")
            done = self.status.step if unit == "steps" else getattr(self.status, unit)
            if isinstance(total, int | float) and total > 0:
                return float(min(1.0, done / total))
        return None

    @property
    def seconds_left(self) -> float | None:
        return self.status.seconds_left

    def as_json(self) -> dict[str, Any]:
        """The machine-readable row of `lmplay runs --json`."""
        status = self.status
        return {
            "run": self.name,
            "path": str(self.path),
            "experiment": self.experiment,
            "state": self.state,
            "step": status.step,
            "tokens": status.tokens,
            "loss": status.loss,
            "validation_loss": status.validation_loss,
            "pid": status.pid,
            "tags": list(self.labels.tags),
            "samples": status.samples,
            "time": status.time,
            "stage": status.stage,
            "reason": status.reason,
            "plan": self.plan,
            "seed": self.seed,
            "created": self.created,
            "updated": status.updated,
            "age": status.age,
            "host": status.host,
            "progress": self.fraction,
            "note": self.labels.note,
            "group": self.labels.group,
        }


def summarize(path: Path) -> RunSummary:
    """Never raises for the content of the folder: what is wrong with it is the summary's `status.reason`."""
    try:
        asked = read_run_file(path)
        status = read_status(path)
    except LMPlayError as error:
        return RunSummary(path=path, status=Status(state=BROKEN, reason=str(error)))
    created, seed = asked.get("created"), asked.get("seed")
    return RunSummary(
        path=path,
        experiment=sys.intern(str(asked.get("experiment", ""))),
        plan=sys.intern(plan_name(asked)),
        seed=seed if isinstance(seed, int) else None,
        created=float(created) if isinstance(created, int | float) else None,
        status=status,
        labels=read_labels(path),
        config=Settings(flat_config(asked)),
        origin=_origin(asked),
        cost=Settings(asked["cost"]) if isinstance(asked.get("cost"), Mapping) else {},
    )


def _origin(asked: Mapping[str, Any]) -> Origin:
    git = asked.get("git")
    git = git if isinstance(git, Mapping) else {}
    return Origin(
        command=str(asked.get("command") or ""),
        host=sys.intern(str(asked.get("host") or "")),
        commit=sys.intern(str(git.get("commit") or "")),
        branch=sys.intern(str(git.get("branch") or "")),
        changed=bool(git.get("changed")),
    )


def summarize_all(root: Path | None = None, *, archived: bool = False) -> list[RunSummary]:
    """Every run, newest first."""
    return [summarize(path) for path in list_runs(root, archived=archived)]
