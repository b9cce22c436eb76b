"""The key-value cache, and what a model asks of it: its layers, the positions of new tokens, the mask they need.

A cache is a list, `[]` an empty one. `KVCache`, made by `model.make_cache`, is a list whose layers take their memory
once and copy nothing afterwards; a plain `[]` works too and grows by doubling. A model that keeps something of its own
in a plain list is free to do so: only the helpers below look inside.
"""

from __future__ import annotations

from typing import Any

import torch

from lmplay.modules.masks import causal_mask, document_mask, left_padding_mask, step_mask
from lmplay.modules.positions import document_positions

FIRST_CAPACITY = 64


class LayerCache:
    """Keys and values of one attention layer, `(B, H, capacity, D/H)`, of which the first `length` positions are set.

    No gradient flows through it: it is for inference.
    """

    def __init__(
        self, capacity: int | None = None, batch_size: int | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.capacity = capacity
        self.batch_size = batch_size
        self.dtype = dtype
        self.length = 0
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken; 0 before the first update."""
        return sum(store.nbytes for store in (self.keys, self.values) if store is not None)

    def update(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append `(B, H, T, D/H)`; returns all keys and values so far, `(B, H, length, D/H)`, as views."""
        start, count = self.length, k.size(2)
        end = start + count
        self.keys, self.values = self._with_room(self.keys, k, end), self._with_room(self.values, v, end)
        self.keys.narrow(2, start, count).copy_(k.detach())
        self.values.narrow(2, start, count).copy_(v.detach())
        self.length = end
        return self.keys.narrow(2, 0, end).to(k.dtype), self.values.narrow(2, 0, end).to(v.dtype)

    def _with_room(self, store: torch.Tensor | None, new: torch.Tensor, end: int) -> torch.Tensor:
        batch_size = store.size(0) if store is not None else self.batch_size
        if batch_size is not None and batch_size != new.size(0):
            raise ValueError(f"the cache holds {batch_size} rows and was given {new.size(0)}; make one for each batch")
        if self.capacity is not None and end > self.capacity:
            raise ValueError(f"the cache has room for {self.capacity} positions, and {end} are needed")
        if store is not None and end <= store.size(2):
            return store
        room = self.capacity if self.capacity is not None else max(end, FIRST_CAPACITY, 2 * self.length)
        # Tensors made in inference mode could not be written to outside of it, in a later turn.
        with torch.inference_mode(False):
            larger = torch.zeros(
                new.size(0), new.size(1), room, new.size(3), dtype=self.dtype or new.dtype, device=new.device
            )
        if store is not None:
            larger[:, :, : self.length] = store[:, :, : self.length]
        return larger

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self.length = min(self.length, length)

    def select_rows(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may come more than once."""
        if self.keys is not None and self.values is not None:
            with torch.inference_mode(False):
                self.keys, self.values = self.keys[rows], self.values[rows]
        if self.batch_size is not None:
            self.batch_size = len(rows)


class KVCache(list[Any]):
    """A list of `LayerCache`, one a layer, that the model fills in as it goes; made by `model.make_cache`.

    `left_padding`, `(B,)`: how many of the first positions of each row are padding, for prompts of unequal length in
    one batch. Padding is masked, and positions count from the first real token.

    `position`, `(1,)`: set by a compiled decoding step, which is given one token at a time and may not depend on Python
    numbers: the position of that token, on the device. The layers then return all `capacity` positions.
    """

    def __init__(
        self,
        *,
        capacity: int | None = None,
        batch_size: int | None = None,
        dtype: torch.dtype | None = None,
        left_padding: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.capacity = capacity
        self.batch_size = batch_size
        self.dtype = dtype
        self.left_padding = left_padding
        self.position: torch.Tensor | None = None

    @property
    def length(self) -> int:
        """How many positions are in the cache, padding included."""
        return cache_length(self)

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken; 0 before the first forward pass."""
        return sum(layer.nbytes for layer in self if isinstance(layer, LayerCache))

    @property
    def can_truncate(self) -> bool:
        """False when the model put something of its own into the list."""
        return all(isinstance(layer, LayerCache) for layer in self)

    def new_layer(self) -> LayerCache:
        return LayerCache(capacity=self.capacity, batch_size=self.batch_size, dtype=self.dtype)

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on: an answer taken back, a prompt that shares its beginning."""
        for layer in self:
            layer.truncate(length)

    def select_rows(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order, as in `index_select`: rows that are done leave, a prompt is multiplied."""
        for layer in self:
            layer.select_rows(rows)
        if self.left_padding is not None:
            self.left_padding = self.left_padding[rows]
        if self.batch_size is not None:
            self.batch_size = len(rows)


def layer_cache(cache: list[Any] | None, index: int) -> Any:
    """The entry of layer `index`, made when it isn't there yet; None without a cache."""
    if cache is None:
        return None
    while len(cache) <= index:
        cache.append(cache.new_layer() if isinstance(cache, KVCache) else LayerCache())
    return cache[index]


def cache_length(cache: list[Any] | None) -> int:
    """How many positions the cache holds: the position of the next token."""
    if not cache:
        return 0
    first = cache[0]
    if isinstance(first, LayerCache):
        return first.length
    if isinstance(first, list | tuple):  # a layer that grows its own [keys, values], each (B, H, T, D/H)
        return int(first[0].size(-2)) if first else 0
    raise TypeError(f"the first layer of the cache is a {type(first).__name__}; its length is not known")


def token_positions(
    x: torch.Tensor,
    cache: list[Any] | None = None,
    documents: torch.Tensor | None = None,
    *,
    max_len: int | None = None,
) -> torch.Tensor:
    """The position of each token of `x` `(B, T)`: `(1, T)`, or `(B, T)` where rows differ.

    They go on where the cache ends, begin after the left padding, and begin anew at each document of a packed row.
    Raises `ValueError` when `max_len` is exceeded.
    """
    if isinstance(cache, KVCache) and cache.position is not None:
        return _after_padding(cache.position.unsqueeze(0), cache)
    start, length = cache_length(cache), x.size(1)
    if max_len is not None and start + length > max_len:
        already = f" after {start} in the cache" if start else ""
        raise ValueError(f"{length} tokens{already} are more than the model's max_len of {max_len}")
    if documents is not None:
        _refuse_both(cache)
        return document_positions(documents)
    return _after_padding(torch.arange(start, start + length, device=x.device).unsqueeze(0), cache)


def attention_mask(
    x: torch.Tensor,
    cache: list[Any] | None = None,
    documents: torch.Tensor | None = None,
    *,
    causal: bool = True,
) -> torch.Tensor | None:
    """What each token of `x` `(B, T)` may attend to among all S positions, for `MultiheadAttention(mask=...)`.

    None where the attention layer's own causality is enough: then no mask takes memory and the fast kernels apply.
    Else boolean, true where attention is allowed: `(T, S)`, or `(B, 1, T, S)` where rows differ.
    """
    if documents is not None:
        _refuse_both(cache)
        return document_mask(documents, causal=causal)
    padding = _left_padding(cache)
    if isinstance(cache, KVCache) and cache.position is not None:
        assert cache.capacity is not None
        return step_mask(cache.position, cache.capacity, padding)
    start, length = cache_length(cache), x.size(1)
    if padding is not None:
        return left_padding_mask(padding, length, start + length, causal=causal)
    if not causal or start == 0 or length == 1:
        return None
    return causal_mask(length, start + length, device=x.device)


def _after_padding(positions: torch.Tensor, cache: list[Any] | None) -> torch.Tensor:
    """`(1, T)` -> the same, or `(B, T)` counted from the first real token of each row."""
    padding = _left_padding(cache)
    return positions if padding is None else (positions - padding.unsqueeze(1)).clamp(min=0)


def _left_padding(cache: list[Any] | None) -> torch.Tensor | None:
    return cache.left_padding if isinstance(cache, KVCache) else None


def _refuse_both(cache: list[Any] | None) -> None:
    if cache is not None:
        raise ValueError("a packed row has no cache: give either `cache` or `documents`")
