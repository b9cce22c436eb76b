"""A pass over the whole fixed validation part. Uses no randomness, leaves the model as it found it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lmplay.train.config import PrecisionName
from lmplay.train.device import arithmetic
from lmplay.train.feed import Rows, batches
from lmplay.train.keep.randomness import preserved_randomness
from lmplay.train.parallel.spread import apart_afterwards
from lmplay.train.parallel.world import World
from lmplay.train.update.memory import OutOfMemory, as_out_of_memory
from lmplay.train.update.objective import Objective


@dataclass(frozen=True)
class Validation:
    """Means over all target tokens of the validation part."""

    loss: float  # nats a token
    accuracy: float  # share of targets that have the largest logit
    targets: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def bits_per_byte(self, bytes_per_token: float) -> float:
        """The loss in bits over the mean length of a token in UTF-8 bytes: comparable across tokenizers."""
        return self.loss / math.log(2) / bytes_per_token


@torch.no_grad()
def validate(
    objective: Objective,
    rows: Rows,
    *,
    piece_size: int,
    precision: PrecisionName,
    device: torch.device,
    heed: Callable[[], None] | None = None,
    tell: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> Validation:
    """Loss and accuracy of the objective's model over all of `rows`, `piece_size` rows at a time in
    each process.

    `heed` is called after each piece; what it raises ends the pass. `tell` is called with the rows done and all rows;
    an accelerator may still be computing the newest of them, since nothing waits for it.
    """
    world = world or World()
    at_once = piece_size * world.size  # so that each process has one piece of each batch
    was_training = objective.training
    objective.eval()
    wide = torch.float64 if device.type != "mps" else torch.float32
    sums = {name: torch.zeros((), dtype=wide, device=device) for name in ("loss", "hits")}
    targets = rows_done = 0
    try:
        with preserved_randomness(device), apart_afterwards(objective.model):
            for batch in batches(
                rows,
                first_row=0,
                end_row=rows.num_rows,
                batch_size=at_once,
                piece_size=piece_size,
                device=device,
                share=world.share,
            ):
                targets += batch.num_targets
                for piece in batch.pieces:
                    with world.together(OutOfMemory), as_out_of_memory(), arithmetic(precision, device):
                        figures = objective(piece, evaluate=True)
                    for name, figure in figures.items() if not piece.stands_in else ():
                        sums[name] += figure
                rows_done += batch.samples
                if heed is not None:
                    heed()
                if tell is not None:
                    tell(rows_done, rows.num_rows)
    finally:
        objective.train(was_training)
    counted = max(1, targets)
    loss, hits = world.add(torch.stack([sums["loss"], sums["hits"]])).tolist()
    return Validation(loss=loss / counted, accuracy=hits / counted, targets=targets)
