"""Reusable layers for experiments. They know torch and nothing else of lmplay."""

from lmplay.modules.attention import MultiheadAttention
from lmplay.modules.block import Block, FeedForward
from lmplay.modules.dropout import Dropout
from lmplay.modules.init import init_gpt2_

__all__ = ["Block", "Dropout", "FeedForward", "MultiheadAttention", "init_gpt2_"]
