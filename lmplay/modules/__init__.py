"""Reusable layers for experiments. They know torch and nothing else of lmplay."""

from lmplay.modules.attention import MultiheadAttention
from lmplay.modules.block import Block, FeedForward
from lmplay.modules.init import init_gpt2_

__all__ = ["Block", "FeedForward", "MultiheadAttention", "init_gpt2_"]
