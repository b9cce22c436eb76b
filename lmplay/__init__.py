"""lmplay: try new language-model architectures in the terminal."""

from __future__ import annotations

from typing import Any

from lmplay.utils.tokenizer import provide_gpt2_vocabulary

__version__ = "0.1.0"

provide_gpt2_vocabulary()


def __getattr__(name: str) -> Any:
    if name == "MODEL_RUNNERS":
        from lmplay.base.runner_list import MODEL_RUNNERS

        return MODEL_RUNNERS
    raise AttributeError(f"module 'lmplay' has no attribute {name!r}")
