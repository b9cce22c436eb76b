"""Weights laid out and, on request, shortened for decoding. Called when a checkpoint is loaded to generate from.

Decoding one token reads every weight once, so its speed is that of memory: what counts is how the weights lie there and
how many bytes they take. The plain model is the reference; tests hold the laid-out one equal to it, and the shortened
ones near it. `lmplay generate RUN --compare-weights` states what shortening costs in perplexity.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmplay.base.base_model import LMBase
from lmplay.utils.errors import LMPlayError, WrongUsageError

Weights = Literal["auto", "float32", "bfloat16", "int8"]
WEIGHTS: tuple[str, ...] = get_args(Weights)

# Below this the weights stay in the processor's caches from token to token, and shortening them gains nothing.
SMALL_MODEL_BYTES = 32 * 2**20
# A weight of fewer elements stays in a core's own cache, and cutting its product up costs more than it gains.
SMALL_WEIGHT = 2**17
# Without instructions for it, torch multiplies bfloat16 matrices 5-10 times slower than float32 ones; only the product
# with one or two rows is limited by memory and gains.
BFLOAT16_ROWS = 2
# Of the two int8 kernels the one reads a weight faster for few rows, the other multiplies many rows twice as fast.
FEW_ROWS = 8


def prepare_for_inference(model: LMBase, weights: str = "float32") -> str:
    """Change `model` in place for decoding on the device it is on; returns the kind of weights it has now.

    `auto` is bfloat16 on a GPU. On a CPU it is int8 where that is faster, for models that do not fit into the caches,
    and float32 for others. The model can't be trained or saved afterwards. Raises `WrongUsageError` for what the
    device can't do.
    """
    if weights not in WEIGHTS:
        raise WrongUsageError(f"{weights!r} is no kind of weights; use one of {', '.join(WEIGHTS)}")
    model.requires_grad_(False)
    on_cpu = next(model.parameters()).device.type == "cpu"
    if weights == "auto":
        weights = choose_weights(model)
    if not on_cpu:
        if weights == "int8":
            raise WrongUsageError("int8 weights are for the CPU; on a GPU use --weights bfloat16")
        model.to(torch.bfloat16 if weights == "bfloat16" else torch.float32)
    elif weights == "float32":
        _replace_linears(model, SplitLinear, at_least=SMALL_WEIGHT)
    else:
        _replace_linears(model, bfloat16_layer() if weights == "bfloat16" else Int8Linear)
    return weights


def choose_weights(model: LMBase) -> str:
    """What `auto` means for this model on its device; the same answer every time on one machine."""
    if next(model.parameters()).device.type != "cpu":
        return "bfloat16"
    in_linears = sum(linear.weight.nbytes for linear in _linears(model))
    return "int8" if in_linears > SMALL_MODEL_BYTES and int8_available() else "float32"


def is_packed(model: nn.Module) -> bool:
    """Whether layers hold their weights in a form that only a processor's own kernels, and no compiler, can read."""
    return any(isinstance(module, PackedBFloat16Linear | Int8Linear) for module in model.modules())


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the weights that one token reads: all parameters but the tables that a token looks up one row of."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    shortened = sum(
        module.weight_bytes
        for module in model.modules()
        if isinstance(module, BFloat16Linear | PackedBFloat16Linear | Int8Linear)
    )
    return shortened + sum(parameter.nbytes for parameter in model.parameters() if id(parameter) not in tables)


class SplitLinear(nn.Linear):
    """A float32 linear layer whose product with one row reads its weight at the speed of memory. For the CPU.

    The weight (N, K) is stored as (K, N), and cut along K into parts that are multiplied apart and added up: a batch of
    small products keeps all threads reading, where the libraries' matrix-vector product does not. The parameter keeps
    its shape, so that code which reads `linear.weight` sees no difference; only its strides change.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.bias = linear.bias
        stored = linear.weight.detach().t().contiguous()  # (K, N)
        self.weight = nn.Parameter(stored.t(), requires_grad=False)
        count = next(count for count in (_parts_wanted(), 8, 4, 2, 1) if linear.in_features % count == 0)
        self._parts = stored.view(count, -1, linear.out_features)  # (K, N) -> (P, K/P, N), the same memory

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() != self.in_features:
            return F.linear(x, self.weight, self.bias)
        rows = x.reshape(len(self._parts), 1, -1)  # (..., K) -> (P, 1, K/P)
        product = torch.bmm(rows, self._parts).sum(dim=0)  # (1, N)
        if self.bias is not None:
            product += self.bias
        return product.view(*x.shape[:-1], self.out_features)


def _parts_wanted() -> int:
    """A power of two, as widths are multiples of those; at least one part a thread."""
    return max(2, 1 << (torch.get_num_threads() - 1).bit_length())


def bfloat16_layer() -> type[BFloat16Linear | PackedBFloat16Linear]:
    """The layer for this processor: packed where it has instructions for bfloat16."""
    return PackedBFloat16Linear if torch.cpu._is_avx512_bf16_supported() else BFloat16Linear


class BFloat16Linear(nn.Module):
    """A linear layer with weights in bfloat16; results are float32. For a CPU without instructions for bfloat16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias: Tensor | None = linear.bias
        self.short = nn.Buffer(linear.weight.detach().to(torch.bfloat16).contiguous())

    @property
    def weight(self) -> Tensor:
        """In float32, made anew at each look, for models that use it by hand."""
        return self.short.float()

    @property
    def weight_bytes(self) -> int:
        return self.short.nbytes

    def forward(self, x: Tensor) -> Tensor:
        short = x.to(torch.bfloat16)
        if x.numel() > BFLOAT16_ROWS * self.in_features:
            # The same numbers by another way: a prompt is read, and perplexity measured, as tokens are decoded.
            product = F.linear(short.float(), self.weight).to(torch.bfloat16).float()
        else:
            product = F.linear(short, self.short).float()
        return product if self.bias is None else product + self.bias


class PackedBFloat16Linear(nn.Module):
    """The same numbers as `BFloat16Linear`'s, on a CPU that multiplies bfloat16: the weight lies in oneDNN's blocks.

    Unpacked, each product would put the weight into blocks first, which takes longer than one with a single row.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias: Tensor | None = linear.bias
        short = linear.weight.detach().to(torch.bfloat16)
        self.weight_bytes = short.nbytes
        # Not a buffer: the blocks are opaque, and can be neither moved nor saved.
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(short, 1)

    @property
    def weight(self) -> Tensor:
        """In float32, made anew at each look, for models that use it by hand."""
        return self._packed.to_dense().float()

    def forward(self, x: Tensor) -> Tensor:
        short = x.to(torch.bfloat16)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(short, self._packed, None, "none", [], "").float()
        return product if self.bias is None else product + self.bias


# (x, packed weight, whether x gets 7 bits) -> x W^T + b. By the overload's name: to look it up at each call costs time.
_int8_product: Callable[[Tensor, object, bool], Tensor] = torch.ops.quantized.linear_dynamic.default


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, one scale for each output, and inputs quantised as they come. For the CPU.

    Inputs get 7 bits, which the kernels of processors without VNNI need so as not to overflow. Each row is scaled to
    its own range first: one row's outliers cost its neighbours nothing. On a processor with VNNI the weight is packed a
    second time, for the kernel that reads prompts.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127  # (N,)
        bias: Tensor | None = linear.bias
        bias = None if bias is None else bias.detach().float()
        self._packed = _pack_int8(weight.contiguous(), scales, bias)
        many_rows = torch.cpu._is_vnni_supported() and "onednn" in torch.backends.quantized.supported_engines
        self._packed_for_many = _pack_int8(weight.contiguous(), scales, bias, engine="onednn") if many_rows else None
        self._bias = bias
        self.weight_bytes = weight.numel() + scales.nbytes

    @property
    def weight(self) -> Tensor:
        """In float32, made anew at each look, for models that use it by hand."""
        packed: Tensor = torch.ops.quantized.linear_unpack(self._packed)[0]
        return packed.dequantize()

    @property
    def bias(self) -> Tensor | None:
        return self._bias

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if x.numel() == self.in_features:
            return _int8_product(x, self._packed, True)
        # The bias is inside the packed product, so rows are scaled on both sides of it: W (x / s) s + b.
        scale = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)  # (..., 1)
        many = self._packed_for_many is not None and x.numel() > FEW_ROWS * self.in_features
        product = _int8_product(x / scale, self._packed_for_many if many else self._packed, True)
        if self._bias is None:
            return product * scale
        return torch.addcmul(self._bias, product - self._bias, scale)


def int8_available() -> bool:
    """Whether this build of torch has the int8 kernels for this processor."""
    try:
        _pack_int8(torch.ones(8, 8), torch.ones(8), None)
    except RuntimeError:
        return False
    return True


def _pack_int8(weight: Tensor, scales: Tensor, bias: Tensor | None, engine: str | None = None) -> object:
    """The weight as the kernels of an engine of `torch.backends.quantized` read it; the processor's own by default."""
    zeros = torch.zeros(len(scales), dtype=torch.long)
    with _quantised_engine(engine), warnings.catch_warnings():
        # torch announces that quantised tensors will go; here one lives only until the kernel has packed it.
        warnings.filterwarnings("ignore", message=".*quantize_per_channel.*", category=UserWarning)
        quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(quantised, bias)


@contextmanager
def _quantised_engine(name: str | None) -> Iterator[None]:
    before = torch.backends.quantized.engine
    if name is not None:
        torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _linears(model: nn.Module) -> Iterator[nn.Linear]:
    """The plain linear layers; a subclass may do something of its own with its weight, and is left alone."""
    return (module for module in model.modules() if type(module) is nn.Linear)


def _replace_linears(model: nn.Module, replacement: Callable[[nn.Linear], nn.Module], *, at_least: int = 0) -> None:
    """In place of each plain linear layer whose weight has `at_least` so many elements."""
    made: dict[int, nn.Module] = {}
    try:
        for name, module in list(model.named_modules(remove_duplicate=False)):
            if type(module) is nn.Linear and module.weight.numel() >= at_least:
                if id(module) not in made:  # a layer that is used in two places stays one layer
                    made[id(module)] = replacement(module)
                model.set_submodule(name, made[id(module)])
    except RuntimeError as error:
        raise LMPlayError(f"this torch cannot shorten the weights ({error}); use --weights float32") from error
