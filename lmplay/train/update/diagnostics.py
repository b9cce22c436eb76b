"""What a gradient and an update look like, measured every so often: the noise scale, and how far each block moves.

Measuring changes no bit of the update. The figures stay on the device, as all figures of a step do.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict

import torch
from torch import Tensor, nn

from lmplay.train.keep.progress import NoiseStatistics
from lmplay.train.parallel.tensors import local
from lmplay.train.parallel.world import World

# Share of the newest measurement in the running means: a single one is mostly noise itself.
NOISE_SHARE = 0.1
NOISE, SIGNAL = "gradient_noise", "gradient_signal"


class Diagnostics:
    """Watches one step while it is made; made anew for each step that is measured."""

    def __init__(self, model: nn.Module, world: World | None = None) -> None:
        self._world = world or World()
        self._named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._weights = [local(p.detach()).clone() for _, p in self._named]
        self._gradients: list[Tensor | None] = [None] * len(self._named)
        self._piece_norms: list[tuple[Tensor, int]] = []

    @torch.no_grad()
    def after_piece(self, num_targets: int, batch_targets: int, *, scale: Tensor | float = 1.0) -> None:
        """The gradient, `scale` times as large as it is, has grown by a piece's: its own is the difference. Not so
        where others add to it, too.
        """
        if self._world.size > 1:
            return
        squares = []
        for index, (_, parameter) in enumerate(self._named):
            if parameter.grad is None:
                continue
            grad, before = local(parameter.grad), self._gradients[index]
            squares.append((grad if before is None else grad - before).square().sum())
            self._gradients[index] = grad.clone()
        share = batch_targets / num_targets / scale  # from a share of the batch's mean to the mean of the piece
        self._piece_norms.append((torch.stack(squares).sum() * share**2, num_targets))

    @torch.no_grad()
    def after_update(self, grad_norm: Tensor, batch_targets: int) -> dict[str, Tensor]:
        """Figures by name: `update_ratio.<block>`, and the two halves of the noise scale."""
        self._gradients.clear()
        moved: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for (name, parameter), before in zip(self._named, self._weights, strict=True):
            difference = local(parameter.detach()) - before
            moved[block_of(name)].append((difference.square().sum(), before.square().sum()))
        figures = {}
        for block, squares in moved.items():
            sums = torch.stack([torch.stack(each).sum() for each in zip(*squares, strict=True)])
            distance, size = self._world.add(sums) if self._world.shard else sums
            figures[f"update_ratio.{block}"] = (distance / size.clamp_min(1e-30)).sqrt()
        return {**figures, **self._noise(grad_norm.square(), batch_targets)}

    def _noise(self, whole: Tensor, batch_targets: int) -> dict[str, Tensor]:
        """McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", appendix A.1.

        The squared norm of a gradient over B tokens is |G|^2 + S / B on average; two sizes of B give both.
        """
        if len(self._piece_norms) < 2:
            return {}
        pieces = torch.stack([norm for norm, _ in self._piece_norms]).mean()
        inverse = sum(1 / tokens for _, tokens in self._piece_norms) / len(self._piece_norms)
        noise = (pieces - whole) / (inverse - 1 / batch_targets)
        return {NOISE: noise, SIGNAL: whole - noise / batch_targets}


def block_of(name: str) -> str:
    """`blocks.3.attn.qkv.weight` -> `blocks.3`; `tok_embed.weight` -> `tok_embed`."""
    found = re.match(r"(.*?\.\d+)\.", name)
    return found[1] if found else name.split(".")[0]


def noise_scale(statistics: NoiseStatistics, noise: float, signal: float) -> float | None:
    """Tokens a batch from which on larger ones stop paying; from running means of both halves. None where unknown."""
    if not (math.isfinite(noise) and math.isfinite(signal)):
        return None  # of a step that was skipped: it would stay in the means for good
    share = max(NOISE_SHARE, 1.0 / (statistics.count + 1))
    statistics.count += 1
    statistics.noise += share * (noise - statistics.noise)
    statistics.signal += share * (signal - statistics.signal)
    return statistics.noise / statistics.signal if statistics.signal > 0 and statistics.noise > 0 else None
