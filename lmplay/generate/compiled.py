"""One decoding step as a fixed program: same shapes and same memory every time, so that it can be compiled.

On a GPU, `torch.compile(mode="reduce-overhead")` records it as a CUDA graph: one launch a token instead of hundreds.
The position of the token is a tensor on the device, and attention runs over the whole cache with the future masked.
Prefill stays as it is. `Context` uses this when it is asked to compile.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmplay.base.base_model import LMBase
from lmplay.base.kv_cache import KVCache, LayerCache
from lmplay.generate.weights import is_packed

# Of the spread of the logits: what rounding may make of a step that is computed in another order.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


class StepLayer:
    """Keys and values of one layer, `(B, H, capacity, D/H)`; the next go where `position` `(1,)` says."""

    def __init__(self, keys: Tensor, values: Tensor, position: Tensor) -> None:
        self.keys, self.values, self.position = keys, values, position

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self.position, k.to(self.keys.dtype))
        self.values.index_copy_(2, self.position, v.to(self.values.dtype))
        return self.keys.to(k.dtype), self.values.to(v.dtype)


class DecodeStep(nn.Module):
    """`(tokens (B, 1), position (1,))` -> logits (B, V), writing into the memory of the cache that it was made from.

    The memory is held as buffers, as the compiler knows that those stay where they are.
    """

    def __init__(self, model: LMBase, cache: KVCache) -> None:
        super().__init__()
        self.model = model
        self.capacity, self.batch_size = cache.capacity, cache.batch_size
        self.layers = len(cache)
        for index, layer in enumerate(cache):
            assert isinstance(layer, LayerCache)
            self.register_buffer(f"keys{index}", layer.keys, persistent=False)
            self.register_buffer(f"values{index}", layer.values, persistent=False)
        self.register_buffer("left_padding", cache.left_padding, persistent=False)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        padding = self.left_padding
        assert padding is None or isinstance(padding, Tensor)
        cache = KVCache(capacity=self.capacity, batch_size=self.batch_size, left_padding=padding)
        cache.position = position
        for index in range(self.layers):
            cache.append(StepLayer(getattr(self, f"keys{index}"), getattr(self, f"values{index}"), position))
        logits: Tensor = self.model(tokens, cache)[0]  # (B, 1, V)
        return logits[:, -1]


class CompiledStep:
    """A `DecodeStep`, compiled, and checked against the model's own logits the first time it runs."""

    def __init__(self, model: LMBase, cache: KVCache, *, backend: str = "inductor") -> None:
        device = next(model.parameters()).device
        mode = "reduce-overhead" if device.type == "cuda" and backend == "inductor" else None
        self._run = torch.compile(DecodeStep(model, cache), fullgraph=True, dynamic=False, backend=backend, mode=mode)
        self._position = torch.zeros(1, dtype=torch.long, device=device)
        self._on_gpu = device.type == "cuda"

    def __call__(self, tokens: Tensor, position: int) -> Tensor:
        """Tokens (B, 1) that stand at `position` -> logits (B, V)."""
        if self._on_gpu:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        self._position.fill_(position)
        logits: Tensor = self._run(tokens, self._position)
        return logits


def why_not(model: LMBase, cache: object) -> str | None:
    """Why this model's step can't be compiled, or None.

    Only the cache's own layers live at fixed places, and only plain weights can be read by what a compiler writes.
    """
    if not isinstance(cache, KVCache) or not len(cache) or not cache.can_truncate:
        return f"{type(model).__name__} keeps a cache of its own kind"
    if is_packed(model):
        return "its weights are packed for this processor's own kernels; --weights float32 can be compiled"
    return None


def agree(compiled: Tensor, plain: Tensor) -> bool:
    """Whether the logits (B, V) of both ways are the same but for rounding."""
    tolerance = TOLERANCE.get(plain.dtype, 1e-3) * float(plain.float().std())
    return bool((compiled.float() - plain.float()).abs().max() <= tolerance)
