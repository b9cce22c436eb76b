"""Run by `test_parallel.py` in each of several forked processes: gradients of one batch, computed together.

Given as globals: `rank`, `size`, `store` (a file at which they meet) and `out` (where the first one leaves what they
found). Not a test module.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lmplay.data import Batch
from lmplay.exp.gpt2ish.model import GPT2
from lmplay.modules.losses import IGNORE
from lmplay.train.config import TrainConfig
from lmplay.train.feed import to_device
from lmplay.train.parallel.place import Place
from lmplay.train.parallel.share import Share
from lmplay.train.parallel.spread import shard
from lmplay.train.parallel.tensors import whole
from lmplay.train.parallel.world import World, joined
from lmplay.train.update.optimizers import build_optimizer
from lmplay.train.update.step import TrainStep

CPU = torch.device("cpu")


class OddModel(GPT2):
    """A loss of its own with a term beside it, and a layer that only some batches reach."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.extra = nn.Linear(8, 8)
        self.never = nn.Linear(2, 2)

    def train_loss(self, batch: Any) -> dict[str, torch.Tensor]:
        states = self.hidden(batch.tokens)  # (b, T, D)
        odd = batch.tokens[:, :1, None] % 2  # (b, 1, 1)
        if odd.any():
            states = states + odd * self.extra(states)
        loss = nn.functional.cross_entropy(self.fc(states).flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        return {"loss": loss, "size": states.square().mean(-1)[batch.targets != IGNORE].mean()}


def uneven_batch(rows: int) -> Batch:
    """Rows with anything between no target and as many as they have tokens."""
    random = np.random.default_rng(1)
    tokens = random.integers(0, 500, (rows, 16))
    targets = np.where(random.random((rows, 16)) < np.linspace(0.0, 1.0, rows + 1)[1:, None], tokens, IGNORE)
    if rows > 2:
        targets[1] = IGNORE
    return Batch(tokens=tokens, targets=targets, documents=None)


CASES = {
    f"{kind.__name__} {rows} {dtype}": (kind, rows, dtype)
    for kind, rows, dtype in [
        (GPT2, 7, torch.float32),
        (GPT2, 7, torch.float64),
        (GPT2, 1, torch.float64),
        (OddModel, 7, torch.float64),
    ]
}


def gradients(case: str, world: World) -> dict[str, Any]:
    """What one update of the case computes: gradient by parameter, figures, and the weights after it."""
    kind, rows, dtype = CASES[case]
    torch.manual_seed(0)
    settings = {"max_len": 16, "num_heads": 2, "num_blocks": 2, "embed_dim": 8}
    model = kind(**settings, attn_dropout=0.0, ff_dropout=0.0, embed_dropout=0.0).to(dtype).train()
    if world.shard:
        shard(model, world, CPU)
    config = TrainConfig(batch_size=8, mini_batch_size=2, grad_clip=0.5, lr=0.1)
    step = TrainStep(model, build_optimizer(model, config, CPU), config, CPU, world)
    share = world.share or Share(0, 1)
    batch = to_device(uneven_batch(rows), first_row=0, piece_size=2, device=CPU, share=share)
    result = step(batch, config.lr)
    named = {name: (p.grad, p.detach()) for name, p in model.named_parameters()}
    return {
        "gradients": {name: None if grad is None else whole(grad) for name, (grad, _) in named.items()},
        "weights": {name: whole(weight) for name, (_, weight) in named.items()},
        "figures": {"loss": result.loss, "grad_norm": result.grad_norm, **result.figures},
    }


def main(rank: int, size: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    found = {}
    place = Place(rank=rank, size=size, local_rank=rank, local_size=size)
    for spread in (False, True):
        meeting = torch.distributed.FileStore(f"{store}-{spread}", size)
        with joined(place, CPU, shard=spread, store=meeting) as world:
            found.update({(case, spread): gradients(case, world) for case in CASES})
    if rank == 0:
        torch.save(found, Path(out))


if __name__ == "__main__":
    main(*(globals()[name] for name in ("rank", "size", "store", "out")))
    os._exit(0)
