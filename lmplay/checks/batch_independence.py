"""Is a row's result its own? Neighbours and the size of the pieces must not matter."""

from __future__ import annotations

import inspect

import torch

from lmplay.base.base_model import LMBase, hidden_of
from lmplay.checks.difference import largest, spread_of
from lmplay.checks.result import CheckResult, failed, passed
from lmplay.checks.subject import Subject, mode, seeded

TOLERANCE = 1e-3
"""Of the spread of the logits: kernels round differently for batches of different sizes."""


def check_batch_independence(subject: Subject) -> CheckResult:
    """A row alone, in a batch, in another order and beside other rows: always the same logits, in both modes."""
    model, tokens = subject.spread, subject.batch.tokens
    with torch.no_grad(), mode(model, training=False):
        together = model(tokens)
        limit = TOLERANCE * spread_of(together)
        alone = torch.cat([model(tokens[row : row + 1]) for row in range(len(tokens))])
        worst = largest(together, alone)
        if worst > limit:
            return failed(
                f"a row of the batch differs by {worst:.2g} from the same row alone",
                "rows are mixed: a mean or a norm over the batch dimension, a reshape that joins rows, an expert's "
                "capacity that other rows fill, or state that a row leaves behind for the next",
            )
        order = torch.arange(len(tokens), device=tokens.device).flip(0)
        turned = largest(model(tokens[order])[order], together)
        if turned > limit:
            return failed(
                f"rows in another order differ by {turned:.2g}",
                "the place of a row in the batch matters: state that is kept per place, or a reshape that joins rows",
            )
        packed = packed_documents(model, tokens)
        if packed is not None and packed > limit:
            return failed(
                f"packed into one row with another document, a document's logits differ by {packed:.2g}",
                "hidden() takes `documents` and does not keep them apart: positions must come from token_positions(x, "
                "cache, documents) and the mask from attention_mask(x, cache, documents)",
            )
    # Equal seeds and shapes give equal dropout, so that only the neighbours differ.
    neighbours = tokens.clone()
    neighbours[1:] = tokens[1:].flip(1)
    results = []
    with torch.no_grad(), mode(model, training=True):
        for ids in (tokens, tokens, neighbours):
            with seeded(subject.seed, subject.device):
                results.append(model(ids)[0])
    first, again, beside_others = results
    if largest(first, again) > limit:
        return passed(f"rows agree to {max(worst, turned):.1g} in eval mode; training mode has other randomness")
    if largest(first, beside_others) > limit:
        return failed(
            f"in training mode, a row differs by {largest(first, beside_others):.2g} when its neighbours change",
            "a statistic over the batch in training mode, as BatchNorm takes: the size of the pieces would change "
            "the result",
        )
    said = "rows alone, together, reordered and beside others" + (
        ", and packed documents" if packed is not None else ""
    )
    return passed(f"{said} agree to {max(worst, turned, packed or 0.0):.1g}")


def packed_documents(model: LMBase, tokens: torch.Tensor) -> float | None:
    """How far the second of two documents in one row is from itself alone; None for a model that takes no documents."""
    hidden = hidden_of(model)
    if hidden is None or "documents" not in inspect.signature(hidden).parameters:
        return None
    row, border = tokens[:1], tokens.size(1) // 2
    documents = (torch.arange(row.size(1), device=row.device) >= border).long().unsqueeze(0)  # (1, T)
    packed = model.output_projection(hidden(row, documents=documents))
    return largest(packed[:, border:], model(row[:, border:]))
