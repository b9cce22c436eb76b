"""Sampling from a model: one call for samples, a decode loop with a cache, a chat session and an engine on pipes.

Importing the package does not import torch; the names below load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmplay.generate.config import SamplingConfig

if TYPE_CHECKING:
    from lmplay.generate.engine import Generation, TokenProbability, generate, generate_text

__all__ = ["Generation", "SamplingConfig", "TokenProbability", "generate", "generate_text"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from lmplay.generate import engine

        return getattr(engine, name)
    raise AttributeError(f"module 'lmplay.generate' has no attribute {name!r}")
