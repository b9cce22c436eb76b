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
    stages: list[StageProgress] = field(default_factory=list)

    def advance(self, *, samples: int, tokens: int, seconds: float) -> None:
        """Count one update of `samples` rows with `tokens` targets that took `seconds`."""
        stage = self.stages[self.stage]
        self.row += samples
        self.step += 1
        for counter in (self, stage):
            counter.samples += samples
            counter.tokens += tokens
            counter.seconds += seconds
        stage.steps += 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Progress:
        return cls(**{**content, "stages": [StageProgress(**stage) for stage in content["stages"]]})
