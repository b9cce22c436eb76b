"""`LMBase`: the base class of every model. Experiments import it, and `BasicModelRunner`, from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import nn

from lmplay.base.constructor import given_arguments, swallows_unknown
from lmplay.base.kv_cache import KVCache
from lmplay.base.runners import BasicModelRunner
from lmplay.utils.tokenizer import get_tokenizer

if TYPE_CHECKING:
    import tiktoken

__all__ = ["BasicModelRunner", "LMBase", "hidden_of"]

DEFAULT_MAX_LEN = 1024


def hidden_of(model: LMBase) -> Callable[..., torch.Tensor] | None:
    """The model's `hidden`, or None where it has none that its `forward` goes through.

    A subclass that changes `forward` alone inherits a `hidden` that is not what it computes.
    """
    for owner in type(model).__mro__:
        if "hidden" in vars(owner):
            return cast("Callable[..., torch.Tensor]", model.hidden)
        if "forward" in vars(owner):
            return None
    return None


class LMBase(nn.Module):
    """A language model: token ids in, logits out.

    A subclass defines `forward(x)`: `(B, T)` -> `(B, T, V)`, and `forward(x, cache)`: -> `((B, 1, V), cache)`, where
    `cache` is a list and `[]` an empty one. That is enough to train and to generate. It may also define

    - `hidden(x, cache=None, documents=None)` -> `(B, T, D)`: the input of `output_projection`. Training then takes the
      loss that never holds all logits, and rows may be packed with several documents.
    - `train_loss(batch)` -> `{"loss": ..., "another term": ...}`: scalars, each the mean over the target tokens of the
      batch. The sum is optimised, and each term is logged by its name.
    """

    causal: ClassVar[bool] = True
    """False for a model whose logits at t may depend on tokens after t; such a model is not asked to generate."""
    surrogate_gradients: ClassVar[bool] = False
    """True for a model whose gradients are not the slope of its loss on purpose: a straight-through estimator, a
    gradient that is scaled or held back. The check of gradients then does not hold the two against each other."""
    supports_left_padding: ClassVar[bool] = False
    """True for a model that honours `KVCache.left_padding` through `token_positions` and `attention_mask`."""

    name: str
    init_kwargs: dict[str, Any]
    max_len: int
    _constructor_arguments: dict[str, Any]
    _tokenizer: tiktoken.Encoding | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        model = super().__new__(cls)
        # A subclass may forget to hand an argument to `super().__init__`; a checkpoint of it must still rebuild it.
        object.__setattr__(model, "_constructor_arguments", given_arguments(model, args, kwargs))
        return model

    def __init__(self, name: str, **init_kwargs: Any) -> None:
        super().__init__()
        self.name = name
        given = self._constructor_arguments
        # What was handed here but is no argument of the constructor can only rebuild a model that swallows the unknown.
        self.init_kwargs = {**init_kwargs, **given} if swallows_unknown(type(self)) else dict(given)
        self.max_len = int({**init_kwargs, **given}.get("max_len", DEFAULT_MAX_LEN))
        self._tokenizer = None

    @property
    def tokenizer(self) -> tiktoken.Encoding:
        """GPT-2's, unless the model sets another."""
        if self._tokenizer is None:
            self._tokenizer = get_tokenizer()
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: tiktoken.Encoding) -> None:
        self._tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.n_vocab

    @property
    def output_projection(self) -> nn.Linear:
        """The layer from `hidden` to the logits; override it where that is not `self.fc`."""
        return cast(nn.Linear, self.fc)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def make_cache(
        self,
        batch_size: int,
        max_len: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        left_padding: torch.Tensor | None = None,
    ) -> KVCache:
        """An empty cache for `batch_size` rows of up to `max_len` positions (the model's own limit where not given).

        Memory is taken at the first forward pass, for all positions at once, on the device of the keys, and in their
        dtype unless `dtype` says otherwise. `left_padding`, `(B,)`: how many of the first positions of each row are
        padding; only for a model that `supports_left_padding`.
        """
        if left_padding is not None:
            if not self.supports_left_padding:
                raise ValueError(f"{type(self).__name__} does not support left padding; give it rows of equal length")
            left_padding = left_padding.to(device if device is not None else self.device)
        return KVCache(
            capacity=min(max_len or self.max_len, self.max_len),
            batch_size=batch_size,
            dtype=dtype,
            left_padding=left_padding,
        )
