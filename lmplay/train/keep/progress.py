"""How far a run is: the counters that a checkpoint keeps, so that a resumed run stands exactly where the saved one
stood.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class StageProgress:
    """What one stage has seen and what it cost."""

    name: str
    steps: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0  # spent in steps; validation and saving are not counted
    loss: float | None = None  # of the newest step
    validation_loss: float | None = None


@dataclass
class LossStatistics:
    """What the next training loss is expected to be, for telling a spike from noise."""

    mean: float = 0.0  # of the newest losses
    lag: float = 0.0  # mean distance of a loss from the mean before it: where the loss falls, it is negative
    variance: float = 0.0  # of that distance
    count: int = 0


@dataclass
class NoiseStatistics:
    """Running means behind the gradient noise scale (see `update/diagnostics.py`)."""

    signal: float = 0.0
    noise: float = 0.0
    count: int = 0


@dataclass
class Progress:
    """Counters over the whole run; `row` is the position within the current stage."""

    stage: int = 0
    row: int = 0
    step: int = 0
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped_steps: int = 0
    best_validation_loss: float | None = None
    best_step: int | None = None
    validated_step: int | None = None
    validation_due: bool = True  # before the first step, or because one was begun and not finished
    milestone_samples: int = 0  # where the newest checkpoint that `keep_every` keeps stands,
    milestone_step: int | None = None  # in samples and in steps
    piece_size: int | None = None  # rows computed at once, where it isn't simply the configured number
    bad_streak: list[list[int]] = field(default_factory=list)  # [stage, first row] of the newest batches that failed
    bad_rows: list[list[int]] = field(default_factory=list)  # of batches to leave out, likewise
    went_back: int = 0  # times that steps without a finite result sent the run back to a checkpoint
    losses: LossStatistics = field(default_factory=LossStatistics)
    noise: NoiseStatistics = field(default_factory=NoiseStatistics)
    stages: list[StageProgress] = field(default_factory=list)

    def advance(self, *, samples: int, tokens: int) -> None:
        """Count one update of `samples` rows with `tokens` targets."""
        stage = self.stages[self.stage]
        self.row += samples
        self.step += 1
        for counter in (self, stage):
            counter.samples += samples
            counter.tokens += tokens
        stage.steps += 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Progress:
        return cls(
            **{
                **content,
                "losses": LossStatistics(**content["losses"]),
                "noise": NoiseStatistics(**content["noise"]),
                "stages": [StageProgress(**stage) for stage in content["stages"]],
            }
        )
