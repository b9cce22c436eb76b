"""What was asked of runs from this screen, and what became of it: requested, accepted at step N, done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmplay.runs import JsonlTail, request
from lmplay.runs.follow import line_start_near_end
from lmplay.runs.layout import EVENTS

_KEPT_SECONDS = 12.0
"""How long the end of a request stays in sight."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request. `state` is `requested`, `accepted`, `done`, `refused` or `expired`."""

    id: str
    run: str
    action: str
    at: float
    state: str = "requested"
    step: int | None = None
    detail: str = ""

    @property
    def over(self) -> bool:
        return self.state in ("done", "refused", "expired")

    def words(self) -> tuple[str, str]:
        """(text, ink)"""
        what = f"{self.action} {self.detail}".strip() if self.action == "set" else self.action
        if self.state == "requested":
            return f"{what}: requested", "warn"
        if self.state == "accepted":
            return (
                f"{what}: accepted at step {self.step:,}" if self.step is not None else f"{what}: accepted",
                "primary",
            )
        if self.state == "done":
            return f"{what}: done" + (f" at step {self.step:,}" if self.step is not None else ""), "good"
        return f"{what}: {self.state}" + (f", {self.detail}" if self.detail else ""), "bad"


class Requests:
    """Asks, and follows the events of the runs that were asked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tails: dict[Path, JsonlTail] = {}
        self._asked: dict[str, Asked] = {}

    def ask(self, path: Path, action: str, **arguments: Any) -> Asked:
        """Leave a request for the run's worker. Raises `LMPlayError`."""
        if path not in self._tails:
            # From what is there now: the answer can only come after it.
            self._tails[path] = JsonlTail(path / EVENTS, offset=line_start_near_end(path / EVENTS, 0))
        name = request(path, action, **arguments)
        detail = ", ".join(f"{key}={value}" for key, value in arguments.items()) if action == "set" else ""
        asked = Asked(id=name, run=path.name, action=action, at=self._clock(), detail=detail)
        self._asked[name] = asked
        return asked

    def look(self) -> bool:
        """Take in the answers; True when anything changed."""
        changed = False
        for path, tail in list(self._tails.items()):
            for row in tail.read():
                changed = self._take(row) or changed
            if all(asked.over for asked in self._asked.values() if asked.run == path.name):
                del self._tails[path]
        now = self._clock()
        for old in [one for one in self._asked.values() if one.over and now - one.at > _KEPT_SECONDS]:
            del self._asked[old.id]
            changed = True
        return changed

    def of(self, run: str) -> list[Asked]:
        """What was asked of a run, the latest last."""
        return [asked for asked in self._asked.values() if asked.run == run]

    def _take(self, row: Mapping[str, Any]) -> bool:
        asked = self._asked.get(str(row.get("id")))
        state = row.get("event")
        if asked is None or state not in ("accepted", "done", "refused", "expired"):
            return False
        step, reason = row.get("step"), row.get("reason")
        self._asked[asked.id] = replace(
            asked,
            state=str(state),
            step=step if isinstance(step, int) else asked.step,
            detail=str(reason) if reason else asked.detail,
            at=self._clock() if state != "accepted" else asked.at,
        )
        return True
