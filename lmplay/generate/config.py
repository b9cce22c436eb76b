"""How the next token is chosen and when to stop: the settings shared by `generate`, `chat` and the server. No torch."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean


class SamplingConfig(BaseModel):
    """Filters apply in the standard order: repetition penalty, temperature, top-k, top-p, min-p."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(default=128, ge=0, description="Stop after this many new tokens.")
    temperature: float = Field(
        default=0.8,
        ge=0,
        allow_inf_nan=False,
        description="Divides the logits: lower is safer, 0 takes the best token.",
    )
    top_k: int = Field(default=50, ge=0, description="Keep only the k most likely tokens; 0 keeps all.")
    top_p: float = Field(
        default=1.0, ge=0, le=1, description="Keep the fewest likely tokens whose probabilities sum to p; 1 keeps all."
    )
    min_p: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Drop tokens less likely than this share of the most likely one; 0 keeps all.",
    )
    repetition_penalty: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Above 1 makes tokens that were already seen less likely."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of the draws; sample number j uses seed + j.")
    stop: tuple[str, ...] = Field(default=(), description="End the text before the first of these strings.")

    @field_validator("stop")
    @classmethod
    def _no_empty_stop_string(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("a stop string may not be empty")
        return value

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def sampling_config(**settings: Any) -> SamplingConfig:
    """A `SamplingConfig`, with what is wrong said in one line. Raises `WrongUsageError`."""
    try:
        return SamplingConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(name, SamplingConfig.model_fields)
            raise WrongUsageError(f"{name!r} is not a setting of sampling{hint}") from error
        message = first["msg"].removeprefix("Value error, ")
        raise WrongUsageError(f"{name} = {first['input']!r}: {message[0].lower()}{message[1:]}") from error
