"""Head and loss, forward and backward: plain logits, torch's chunked form, and lmplay's, at 64 and 768 wide."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.pairs import compare, show
from lmplay.modules.losses import cross_entropy_sum, linear_cross_entropy_sum

VOCABULARY = 50257
POSITIONS = 2048


def main(arguments: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    for width in (64, 768):
        print(
            f"{width} wide, {POSITIONS} positions, {torch.get_num_threads()} threads; first line is what is divided by"
        )
        show(compare(alternatives(width), rounds=5))


def alternatives(width: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    hidden = torch.randn(POSITIONS, width, requires_grad=True)
    weight = (torch.randn(VOCABULARY, width) * 0.02).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (POSITIONS,))

    def measured(loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            hidden.grad = weight.grad = None
            (loss() / POSITIONS).backward()

        return run

    runs = {"plain": measured(lambda: cross_entropy_sum(F.linear(hidden, weight), targets))}
    runs["F.linear_cross_entropy"] = measured(lambda: F.linear_cross_entropy(hidden, weight, targets, reduction="sum"))
    for chunk in (64, 128, 256, 512, 1024):
        runs[f"chunks of {chunk}"] = measured(
            lambda chunk=chunk: linear_cross_entropy_sum(hidden, weight, targets, chunk_size=chunk)
        )
    return runs


if __name__ == "__main__":
    main()
