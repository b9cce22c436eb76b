"""Rows of tokens and the model's memory of them: feeds new tokens, gives the logits of the next, slides past max_len.

The decode loop makes one for each call; a chat session keeps one between turns, so that only new tokens are computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmplay.base.base_model import LMBase
from lmplay.base.kv_cache import KVCache
from lmplay.generate.compiled import CompiledStep, agree, why_not
from lmplay.generate.recorded import RecordedStep, record


def takes_cache(model: LMBase) -> bool:
    """Whether `forward(x, cache)` may be used: a model may define `forward(x)` alone, or look both ways."""
    return model.causal and "cache" in inspect.signature(model.forward).parameters


def takes_rows_of_any_length(model: LMBase) -> bool:
    """Whether one batch may hold prompts of different lengths, the shorter ones padded at the left."""
    return model.supports_left_padding and takes_cache(model)


class Context:
    """A batch of rows that grow together, one token each at a time.

    `capacity` is how many positions are held: the model's `max_len` unless fewer will do. When the longest row outgrows
    it, each row keeps its last three quarters of `capacity`, computed anew at positions from 0 (`slides` counts it):
    learned positions leave no cheaper way, and dropping a whole quarter keeps it rare. `rows` are the tokens held, and
    `dropped` says how many of each row's first tokens are not among them any more.
    """

    def __init__(
        self,
        model: LMBase,
        batch_size: int = 1,
        *,
        capacity: int | None = None,
        compiled: str | None = None,
        recorded: bool = False,
    ) -> None:
        """`compiled` names a backend of `torch.compile` for the steps of one token; not all models can be compiled.

        `recorded` steps, on a CPU, cost the time of a dozen steps once, and then some milliseconds less each; where the
        model's steps can't be recorded they are made the plain way, with the same results.
        """
        self.model = model
        self.compiled = compiled
        self.not_compiled: str | None = None
        """Why the steps are not compiled although that was asked for."""
        self.not_recorded: str | None = None
        """Likewise."""
        self._step: CompiledStep | RecordedStep | None = None
        self.capacity = min(capacity or model.max_len, model.max_len)
        self.rows: list[list[int]] = [[] for _ in range(batch_size)]
        self.dropped = [0] * batch_size
        self.slides = 0
        self.device = next(model.parameters()).device
        self._to_record = recorded and compiled is None and self.device.type == "cpu"
        self._takes_cache = takes_cache(model)
        self._cache: Any = None
        self._positions = 0  # of the cache that are taken, padding included

    def feed(self, new: Sequence[Sequence[int]]) -> Tensor:
        """Append tokens to each row -> logits (B, V) of what comes next.

        Each row gets the same number, unless this is the first call and the model `takes_rows_of_any_length`.
        """
        assert len(new) == len(self.rows)
        assert all(new)
        self.rows = [row + list(tokens) for row, tokens in zip(self.rows, new, strict=True)]
        count = len(new[0])
        if self._cache is None or self._positions + count > self.capacity:
            return self._start()
        assert all(len(tokens) == count for tokens in new)
        return self._advance([row[-count:] for row in self.rows])

    def rewind(self, length: int) -> bool:
        """Forget what the only row holds from `length` on. False, and no change, where the model's cache can't."""
        assert len(self.rows) == 1
        if self._cache is not None and length < self._positions:
            if not self._can_rewind():
                return False
            self._cache.truncate(length)
            self._positions = length
        self.rows = [self.rows[0][:length]]
        return True

    def _can_rewind(self) -> bool:
        return isinstance(self._cache, KVCache) and self._cache.can_truncate

    @property
    def nbytes(self) -> int:
        """Bytes of the cache; 0 before the first token, and for a model that keeps a cache of its own kind."""
        return self._cache.nbytes if isinstance(self._cache, KVCache) else 0

    def _start(self) -> Tensor:
        """Compute all rows from position 0, after dropping the oldest tokens of those that are too long."""
        if max(map(len, self.rows)) > self.capacity:
            kept = max(1, self.capacity - self.capacity // 4)
            self.dropped = [
                dropped + max(0, len(row) - kept) for dropped, row in zip(self.dropped, self.rows, strict=True)
            ]
            self.rows = [row[-kept:] for row in self.rows]
            self.slides += 1
        width = max(map(len, self.rows))
        if not self._takes_cache:
            everything: Tensor = self.model(self._tensor(self.rows))  # (B, T) -> (B, T, V)
            return everything[:, -1]
        padding = [width - len(row) for row in self.rows]
        left_padding = torch.tensor(padding, device=self.device) if any(padding) else None
        self._positions = 0
        if self._can_rewind() and (left_padding is None or self._cache.left_padding is not None):
            self._cache.truncate(0)  # the same memory, which a compiled step relies on
            if self._cache.left_padding is not None:
                self._cache.left_padding.copy_(torch.tensor(padding))
        else:
            self._cache = self.model.make_cache(len(self.rows), self.capacity, left_padding=left_padding)
            self._step = None
        filler = self.model.tokenizer.eot_token
        return self._advance([[filler] * pad + row for pad, row in zip(padding, self.rows, strict=True)])

    def _advance(self, columns: Sequence[Sequence[int]]) -> Tensor:
        tokens = self._tensor(columns)  # (B, T)
        if self._step is not None and tokens.size(1) == 1:
            following = self._step(tokens, self._positions)
            self._positions += 1
            for layer in self._cache:
                layer.length = self._positions
            return following
        logits: Tensor
        logits, self._cache = self.model(tokens, self._cache)  # -> (B, 1, V)
        self._positions += tokens.size(1)
        if self.compiled is not None and self.not_compiled is None and tokens.size(1) == 1:
            self._compile(tokens, logits[:, -1])
        if self._to_record and tokens.size(1) == 1:
            self._record(tokens)
        return logits[:, -1]

    def _record(self, tokens: Tensor) -> None:
        """Write down the step that has just been made. Tried once for each cache."""
        self._to_record = False
        try:
            self._step = record(self.model, self._cache, tokens)
        except Exception as error:  # noqa: BLE001 - models fail in all ways, and the plain step is there
            self.not_recorded = str(error)

    def _compile(self, tokens: Tensor, expected: Tensor) -> None:
        """Compile the step that has just been run the plain way, and use it from now on if it gives the same logits."""
        assert self.compiled is not None
        self.not_compiled = why_not(self.model, self._cache)
        if self.not_compiled is not None:
            return
        step = CompiledStep(self.model, self._cache, backend=self.compiled)
        written = [
            (layer.keys[:, :, self._positions - 1], layer.values[:, :, self._positions - 1]) for layer in self._cache
        ]
        plain = [(keys.clone(), values.clone()) for keys, values in written]
        try:
            if agree(step(tokens, self._positions - 1), expected):
                self._step = step
            else:
                self.not_compiled = "the compiled step gives other logits, as the model computes positions by itself"
        except Exception as error:  # noqa: BLE001 - compilers and models fail in all ways, and the plain step is there
            self.not_compiled = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if self.not_compiled is not None:  # what the trial wrote is not to be trusted
            for (keys, values), (plain_keys, plain_values) in zip(written, plain, strict=True):
                keys.copy_(plain_keys)
                values.copy_(plain_values)

    def _tensor(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self.device)
