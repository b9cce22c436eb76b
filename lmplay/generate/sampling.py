"""From logits to the next token of each row. Called by the decode loop in `engine.py`.

`filter_logits` is the plain reference: every filter over the whole vocabulary, as the papers and the `transformers`
processors define them. `Sampler` looks only at the tokens that can survive the filters, which gives the same
distribution (a test holds them equal) without sorting 50,000 tokens for each that is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lmplay.generate.config import SamplingConfig

# Nucleus sampling looks at so many of the most likely tokens first, which is enough for a model that knows something.
NUCLEUS_CANDIDATES = 512
# A candidate's share of probability may differ in its last bits between the two paths.
ROUNDING = 1e-5


def penalise_repetition(logits: Tensor, seen: Sequence[Tensor], penalty: float) -> Tensor:
    """(B, V) -> (B, V): logits of tokens in `seen[row]` move towards "less likely" by `penalty` (CTRL, section 4.1).

    Positive logits are divided and negative ones multiplied. A token counts once, however often it was seen.
    """
    if penalty == 1.0:
        return logits
    result = logits.clone()
    for row, ids in enumerate(seen):
        values = logits[row, ids]
        result[row, ids] = torch.where(values < 0, values * penalty, values / penalty)
    return result


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """(B, V) -> (B, V): -inf for what is less likely than the k-th token. Ties with the k-th are kept. 0 keeps all."""
    if k == 0 or k >= logits.size(-1):
        return logits
    kth = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """(B, V) -> (B, V): -inf outside the nucleus (Holtzman et al. 2020): the fewest tokens that reach probability p."""
    if p >= 1.0:
        return logits
    values, order = logits.sort(dim=-1)
    outside = outside_nucleus(values, p)
    return logits.masked_fill(outside.scatter(-1, order, outside), -torch.inf)


def outside_nucleus(values: Tensor, p: float) -> Tensor:
    """Logits (B, V) that ascend -> (B, V): whether each is one of the least likely, which together have 1 - p."""
    outside = values.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    outside[:, -1] = False
    return outside


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """(B, V) -> (B, V): -inf for tokens below p times the probability of the most likely one (Nguyen et al. 2024)."""
    if p == 0.0:
        return logits
    probabilities = logits.softmax(dim=-1)
    best = probabilities.amax(dim=-1, keepdim=True)
    below = (probabilities < p * best).scatter(-1, logits.argmax(dim=-1, keepdim=True), False)
    return logits.masked_fill(below, -torch.inf)


def filter_logits(logits: Tensor, seen: Sequence[Tensor], config: SamplingConfig) -> Tensor:
    """(B, V) -> (B, V): the reference path, all filters in the standard order. `config.temperature` must be above 0."""
    logits = penalise_repetition(logits.float(), seen, config.repetition_penalty)
    return filter_scaled(logits / config.temperature, config)


def filter_scaled(logits: Tensor, config: SamplingConfig) -> Tensor:
    """(B, V) -> (B, V): top-k, top-p and min-p of logits that were penalised and divided by the temperature."""
    return keep_min_p(keep_top_p(keep_top_k(logits, config.top_k), config.top_p), config.min_p)


def draw(logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """(B, V) -> (B,): one index a row, from one number of that row's generator (inverse of the cumulative sum)."""
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64, device=g.device) for g in generators])
    chosen = torch.searchsorted(cumulative, uniform.to(logits.device) * cumulative[:, -1:], right=True).squeeze(1)
    # Rounding may put the drawn number on the total itself: that is the last index with any probability.
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous()).squeeze(1)
    return torch.minimum(chosen, last)


def make_generators(seeds: Sequence[int], device: torch.device) -> list[torch.Generator]:
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def argmax(logits: Tensor) -> Tensor:
    """(B, V) -> (B,). numpy's is ten times as fast on the CPU, and torch's would take 2% of a fast step."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1)
    return torch.from_numpy(logits.float().numpy().argmax(axis=-1))


def ascending(logits: Tensor) -> Tensor:
    """(B, V) -> (B, V), each row sorted. On the CPU by numpy, which sorts bare numbers with vector instructions."""
    if logits.device.type != "cpu":
        return logits.sort(dim=-1).values
    return torch.from_numpy(np.sort(logits.numpy(), axis=-1))


def all_finite(logits: Tensor) -> list[bool]:
    """Which rows of (B, V) are sound. Their maximum is NaN where any logit is; -inf alone merely excludes a token."""
    if logits.device.type != "cpu":
        return torch.isfinite(logits.amax(dim=-1)).tolist()
    return [math.isfinite(value) for value in logits.float().numpy().max(axis=-1).tolist()]


class Sampler:
    """Chooses the next token of each row. Holds one generator a row, so no row's draws depend on its neighbours."""

    def __init__(self, config: SamplingConfig, generators: Sequence[torch.Generator]) -> None:
        self.config = config
        self.generators = generators

    def __call__(self, logits: Tensor, seen: Sequence[Tensor]) -> Tensor:
        """Logits (B, V) and the ids each row has seen -> (B,) token ids."""
        logits = penalise_repetition(logits.float(), seen, self.config.repetition_penalty)
        if self.config.greedy:
            return argmax(logits)
        # The best logit becomes 0, so that no temperature, however low, overflows.
        scaled = (logits - logits.amax(dim=-1, keepdim=True)) / self.config.temperature
        candidates = self.candidates(scaled)
        if candidates is None:
            return draw(filter_scaled(scaled, self.config), self.generators)
        values, ids = candidates
        return ids.gather(1, draw(values, self.generators).unsqueeze(1)).squeeze(1)

    def candidates(self, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """Scaled logits (B, V) -> the few that survive, as (logits (B, C), ids (B, C)) in the order of ids.

        None where no small set is certain to hold the survivors: the caller then takes the reference path.
        """
        config, vocabulary = self.config, logits.size(-1)
        if 0 < config.top_k < vocabulary:
            values, ids = logits.topk(config.top_k + 1, dim=-1)
            if bool((values[:, -1] == values[:, -2]).any()):
                return None  # a tie at the border: the reference keeps all of them
            values, ids = values[:, :-1], ids[:, :-1]
            normaliser = values.logsumexp(dim=-1, keepdim=True)
        elif config.top_p < 1.0:
            normaliser = logits.logsumexp(dim=-1, keepdim=True)
            if vocabulary < 2 * NUCLEUS_CANDIDATES:
                return None
            values, ids = logits.topk(NUCLEUS_CANDIDATES, dim=-1)
            covered = (values - normaliser).exp().sum(dim=-1)
            if not bool((covered > config.top_p + ROUNDING).all()):
                return self._wide_nucleus(logits)
        else:
            return None
        if config.top_p < 1.0:
            probabilities = (values - normaliser).exp()
            above = probabilities.cumsum(dim=-1) - probabilities  # of the tokens more likely than this one
            outside = above >= config.top_p
            outside[:, 0] = False
            values = values.masked_fill(outside, -torch.inf)
        values = keep_min_p(values, config.min_p)
        # Drawn in the order of ids, as the reference does: two logits that are alike but for their last bits may come
        # in either order, and the token must not depend on it.
        ids, order = ids.sort(dim=-1)
        return values.gather(1, order), ids

    def _wide_nucleus(self, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """As `candidates`, of a distribution so flat that the nucleus may be a large part of the vocabulary.

        The reference's arithmetic on values that are sorted without their ids, several times as fast: the smallest one
        inside the nucleus tells which tokens are.
        """
        values = ascending(logits)  # (B, V)
        dropped = outside_nucleus(values, self.config.top_p).sum(dim=-1, keepdim=True)  # (B, 1)
        border, below = values.gather(1, dropped), values.gather(1, (dropped - 1).clamp(min=0))
        if bool(((below == border) & (dropped > 0)).any()):
            return None  # a tie at the border: which of them is kept is the reference's to say
        survivors = keep_min_p(logits.masked_fill(logits < border, -torch.inf), self.config.min_p)
        return survivors, torch.arange(logits.size(-1), device=logits.device).expand_as(logits)
