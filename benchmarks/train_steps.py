"""What `benchmarks.train` holds against each other: lmplay's step, transformers', the plain one, and the bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmplay.base.base_model import LMBase
from lmplay.base.runner_list import get_runner
from lmplay.data import StageData, open_stage
from lmplay.modules.losses import default_chunk_size
from lmplay.plans import load_plan
from lmplay.train.config import LossForm, TrainConfig
from lmplay.train.feed import to_device
from lmplay.train.update.clipping import gradient_norm
from lmplay.train.update.compiling import compile_blocks
from lmplay.train.update.optimizers import build_optimizer
from lmplay.train.update.step import TrainStep
from lmplay.utils import get_tokenizer

CPU = torch.device("cpu")
LR = 1e-4
BOUNDS = ["products alone", "products, AdamW"]
Step = Callable[[], int]
"""Makes one update; returns the number of targets."""


@dataclass(frozen=True)
class Shape:
    experiment: str
    length: int
    rows: int
    dropout: float | None

    def model(self) -> LMBase:
        torch.manual_seed(0)
        names = ("attn_dropout", "ff_dropout", "embed_dropout")
        chosen = {} if self.dropout is None else dict.fromkeys(names, self.dropout)
        return get_runner(self.experiment).build_model(**chosen).train()

    def text(self, packing: str = "stream") -> StageData:
        return open_stage(load_plan("quickstart"), 0, sequence_length=self.length, packing=packing)


def lmplay_step(shape: Shape, *, compiled: bool = False, loss: LossForm = "auto") -> Step:
    model = shape.model()
    if compiled:
        compile_blocks(model)
    step = trained_step(model, TrainConfig(batch_size=shape.rows, mini_batch_size=shape.rows, loss=loss))
    positions, data = firsts(shape), shape.text()

    def run() -> int:
        first = next(positions)
        batch = to_device(data.rows(first, shape.rows), first_row=first, piece_size=shape.rows, device=CPU)
        step(batch, LR).loss.item()
        return batch.num_targets

    return run


def trained_step(model: LMBase, config: TrainConfig) -> TrainStep:
    return TrainStep(model, build_optimizer(model, config, CPU), config, CPU)


def transformers_step(shape: Shape) -> Step:
    from transformers import GPT2Config, GPT2LMHeadModel

    ours = shape.model()
    kwargs = ours.init_kwargs
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=ours.vocab_size,
            n_positions=ours.max_len,
            n_embd=kwargs["embed_dim"],
            n_layer=kwargs["num_blocks"],
            n_head=kwargs["num_heads"],
            attn_pdrop=kwargs["attn_dropout"],
            resid_pdrop=kwargs["ff_dropout"],
            embd_pdrop=kwargs["embed_dropout"],
            activation_function="gelu",
            tie_word_embeddings=False,
        )
    ).train()
    del ours
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    positions, data = firsts(shape), shape.text()

    def run() -> int:
        tokens = torch.from_numpy(data.rows(next(positions), shape.rows).tokens)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        return tokens[:, 1:].numel()

    return run


def plain_step(shape: Shape) -> Step:
    model = PlainGPT2(shape.model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    positions, data, tokenizer = firsts(shape), shape.text("pad"), get_tokenizer()

    def run() -> int:
        batch = data.rows(next(positions), shape.rows)
        targets = torch.from_numpy(batch.targets)
        longest = int((targets >= 0).sum(1).max())
        tokens, targets = torch.from_numpy(batch.tokens)[:, :longest], targets[:, :longest]
        logits = model(tokens)
        loss = F.cross_entropy(logits.transpose(1, 2), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        for predicted, wanted in zip(logits.argmax(-1), targets, strict=True):
            counts = wanted >= 0
            guess, truth = (tokenizer.decode(ids[counts].tolist()) for ids in (predicted, wanted))
            sum(one == other for one, other in zip(guess, truth, strict=False))
        return int((targets >= 0).sum())

    return run


class PlainGPT2(nn.Module):
    """The same parameters as lmplay's, computed as a textbook would."""

    def __init__(self, model: LMBase) -> None:
        super().__init__()
        self.inner = model
        self.dropout = model.init_kwargs["attn_dropout"]
        length = model.max_len
        self.register_buffer("mask", torch.ones(length, length, dtype=torch.bool).tril())

    def forward(self, x: Tensor) -> Tensor:
        model = self.inner
        h = model.dropout(model.tok_embed(x) + model.pos_embed[:, : x.size(1)])
        for block in model.blocks:
            h = h + self.attention(block.attn, block.ln1(h))
            h = h + block.ff(block.ln2(h))
        return model.fc(model.ln(h))

    def attention(self, layer: nn.Module, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        heads = layer.num_heads
        q, k, v = (part.view(batch, length, heads, dim // heads).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1))
        weights = q @ k.transpose(-2, -1) / (dim // heads) ** 0.5  # (B, H, T, T)
        weights = weights.masked_fill(~self.mask[:length, :length], float("-inf")).softmax(-1)
        weights = F.dropout(weights, self.dropout, self.training)
        return layer.dropout(layer.proj((weights @ v).transpose(1, 2).reshape(batch, length, dim)))


def bound_step(shape: Shape, *, update: bool = False) -> Step:
    """Each linear layer's output and the gradients of its input and weight; the head's in the chunks of the loss."""
    model = shape.model()
    kwargs, tokens = model.init_kwargs, shape.rows * shape.length
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    heads = (shape.rows, kwargs["num_heads"], shape.length, kwargs["embed_dim"] // kwargs["num_heads"])
    q, k, v, grad_out = (torch.randn(heads) for _ in range(4))
    optimizer = build_optimizer(model, TrainConfig(), CPU)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    chunks = {layer: default_chunk_size(layer.in_features) if layer is model.fc else tokens for layer in layers}
    sizes = {(min(tokens, chunks[layer]), *layer.weight.shape) for layer in layers}
    buffers = {size: [torch.randn(size[0], width) for width in (*size[1:], *size[1:])] for size in sizes}

    @torch.no_grad()
    def run() -> int:
        for layer in layers:
            rows = min(tokens, chunks[layer])
            out, x, grad, grad_x = buffers[rows, *layer.weight.shape]
            for first in range(0, tokens, rows):
                torch.mm(x, layer.weight.t(), out=out)
                torch.mm(grad, layer.weight, out=grad_x)
                layer.weight.grad.addmm_(grad.t(), x, beta=int(first > 0))
        with torch.enable_grad():
            for _ in range(kwargs["num_blocks"]):
                inputs = [part.detach().requires_grad_() for part in (q, k, v)]
                F.scaled_dot_product_attention(*inputs, is_causal=True).backward(grad_out)
        if update:
            gradient_norm([parameter.grad for parameter in model.parameters()])
            optimizer.step()
        return tokens

    return run


def firsts(shape: Shape) -> Iterator[int]:
    return iter(range(0, 10_000, shape.rows))


STEPS: dict[str, Callable[[Shape], Step]] = {
    "transformers": transformers_step,
    "plain": plain_step,
    "lmplay": lmplay_step,
    "lmplay, all logits": lambda shape: lmplay_step(shape, loss="plain"),
    "lmplay, small pages": lmplay_step,
    "products alone": bound_step,
    "products, AdamW": lambda shape: bound_step(shape, update=True),
    "lmplay, compiled": lambda shape: lmplay_step(shape, compiled=True),
}
