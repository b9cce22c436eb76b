"""Ground floor: what every room may use. Nothing here imports torch."""

from lmplay.utils.names import to_name
from lmplay.utils.tokenizer import get_tokenizer

__all__ = ["get_tokenizer", "to_name"]
