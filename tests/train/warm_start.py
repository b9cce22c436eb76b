"""Imported once by the server that forks the workers of tests: what every worker would have to load for itself."""

from __future__ import annotations

import lmplay.train.worker  # noqa: F401
from lmplay.data.text.tokens import token_sizes
from lmplay.utils import get_tokenizer

get_tokenizer()
token_sizes("gpt2")
