"""Results as plain dictionaries: the object of `generate --json`, which the server's `done` event holds too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmplay.generate.engine import Generation, TokenProbability


def generation_as_dict(prompt: str, result: Generation) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "prompt": prompt,
        "text": result.text,
        "tokens": result.tokens,
        "stopped_by": result.stopped_by,
        "tokens_per_second": result.tokens_per_second,
        "time_to_first_token": result.time_to_first_token,
    }
    if result.probabilities:
        answer["probabilities"] = [_probability(item) for item in result.probabilities]
    return answer


def _probability(item: TokenProbability) -> dict[str, Any]:
    answer: dict[str, Any] = {"token": item.token, "text": item.text, "probability": item.probability}
    if item.alternatives:
        answer["alternatives"] = [_probability(other) for other in item.alternatives]
    return answer
