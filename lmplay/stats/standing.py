"""What a comparison consists of: groups of runs, where each stands, and the whole as `compare --json` gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lmplay.stats.curves import RunCurve


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A group of runs at the x of the comparison. `None` wherever the runs can't tell."""

    name: str
    runs: tuple[str, ...]
    seeds: int
    is_baseline: bool
    validation_loss: float | None
    """Mean over the seeds."""
    deviation: float | None
    loss_interval: tuple[float, float] | None
    """Bootstrap interval of the mean loss."""
    perplexity: float | None
    bits_per_byte: float | None
    accuracy: float | None
    difference: float | None
    """Loss minus that of the baseline; negative is better."""
    interval: tuple[float, float] | None
    """95% interval of the difference, by the t distribution."""
    p_value: float | None
    """Adjusted (Holm) when several are held against the baseline."""
    test: str | None
    seeds_needed: int | None
    """Seeds each that would settle a difference of this size."""
    needs: dict[str, float | None]
    """Tokens and seconds to the loss with which the baseline ends."""
    speedup_tokens: float | None
    speedup_time: float | None
    parameters: int | None
    flops_per_token: float | None
    difference_at_equal_flops: float | None
    diverged: bool
    settings: dict[str, Any]
    """Those in which it differs from the baseline."""
    verdict: str

    def as_json(self) -> dict[str, Any]:
        fields = {
            key: value for key, value in vars(self).items() if key not in ("name", "runs", "is_baseline", "needs")
        }
        return {
            "run": self.runs[0],
            "group": self.name,
            "runs": list(self.runs),
            "baseline": self.is_baseline,
            "tokens_needed": self.needs.get("tokens"),
            "time_needed": self.needs.get("time"),
            **fields,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `lmplay compare` shows: the groups, the baseline first, and what it all means."""

    baseline: str
    axis: str
    x: float | None
    """Where everything is compared: as far as all of the runs went."""
    stage: str | None
    comparable: bool
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    standings: tuple[Standing, ...] = ()
    verdict: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline,
            "x": self.axis,
            "comparable": self.comparable,
            "reasons": list(self.reasons),
            "runs": [standing.as_json() for standing in self.standings],
            "verdict": self.verdict,
            "at": self.x,
            "stage": self.stage,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    name: str
    runs: list[RunCurve] = field(default_factory=list)
