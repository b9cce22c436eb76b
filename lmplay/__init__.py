"""lmplay: try new language-model architectures in the terminal."""

from __future__ import annotations

import importlib
from typing import Any

from lmplay.utils.tokenizer import provide_gpt2_vocabulary

__version__ = "0.1.0"

provide_gpt2_vocabulary()


def __getattr__(name: str) -> Any:
    if name == "MODEL_RUNNERS":
        # By its name: `import lmplay` stands below every room and depends on none of them.
        return importlib.import_module("lmplay.base.runner_list").MODEL_RUNNERS
    raise AttributeError(f"module 'lmplay' has no attribute {name!r}")
