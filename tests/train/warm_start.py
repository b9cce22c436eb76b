"""Imported once by the server that forks the workers of tests: what every worker would have to load for itself."""

from __future__ import annotations

# What torch itself only loads once it is used: with the first optimizer, and with several processes.
import torch._dynamo
import torch.distributed.fsdp
import torch.distributed.tensor  # noqa: F401

import lmplay.train.worker  # noqa: F401
from lmplay.data.text.tokens import token_sizes
from lmplay.utils import get_tokenizer

get_tokenizer()
token_sizes("gpt2")
