"""lmplay: try new language-model architectures in the terminal."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

__version__ = "0.1.0"


class _VocabularyFirst:
    """Has GPT-2's vocabulary in place when tiktoken is imported: what doesn't tokenize needn't wait for that."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:  # noqa: ARG002
        if name == "tiktoken":
            from lmplay.utils.tokenizer import provide_gpt2_vocabulary

            provide_gpt2_vocabulary()


sys.meta_path.insert(0, _VocabularyFirst())
if "tiktoken" in sys.modules:
    _VocabularyFirst().find_spec("tiktoken")


def __getattr__(name: str) -> Any:
    if name == "MODEL_RUNNERS":
        # By its name: `import lmplay` stands below every room and depends on none of them.
        return importlib.import_module("lmplay.base.runner_list").MODEL_RUNNERS
    raise AttributeError(f"module 'lmplay' has no attribute {name!r}")
