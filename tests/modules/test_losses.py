"""The chunked loss is the plain one: same value, same gradients, in every type and for every chunk size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmplay.modules.losses import IGNORE, cross_entropy_sum, linear_cross_entropy_and_hits, linear_cross_entropy_sum


def example(
    dtype: torch.dtype, *, bias: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 7, 16, generator=generator, dtype=dtype)
    weight = torch.randn(50, 16, generator=generator, dtype=dtype) * 0.3
    targets = torch.randint(0, 50, (3, 7), generator=generator)
    targets[0, 2:5] = IGNORE
    targets[2] = IGNORE
    return hidden, weight, torch.randn(50, generator=generator, dtype=dtype) if bias else None, targets


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 4, 5, 21, 1000])
def test_chunked_equals_torchs_cross_entropy_in_float64(chunk_size: int, bias: bool) -> None:
    hidden, weight, offset, targets = example(torch.float64, bias=bias)
    inputs = [tensor.requires_grad_() for tensor in (hidden, weight, offset) if tensor is not None]
    logits = F.linear(hidden, weight, offset)
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
    chunked = linear_cross_entropy_sum(hidden, weight, targets, bias=offset, chunk_size=chunk_size)
    torch.testing.assert_close(chunked, plain, rtol=1e-12, atol=0)
    scale = 0.125  # the trainer divides by the number of targets: the outer factor must reach the gradients
    for ours, theirs in zip(
        torch.autograd.grad(chunked * scale, inputs), torch.autograd.grad(plain * scale, inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_chunked_equals_plain_to_rounding_in_float32() -> None:
    hidden, weight, _, targets = example(torch.float32)
    hidden.requires_grad_()
    weight.requires_grad_()
    plain = cross_entropy_sum(F.linear(hidden, weight), targets)
    chunked = linear_cross_entropy_sum(hidden, weight, targets, chunk_size=4)
    torch.testing.assert_close(chunked, plain, rtol=1e-6, atol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(chunked, (hidden, weight)), torch.autograd.grad(plain, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_chunked_follows_autocast_and_returns_gradients_in_the_weights_type() -> None:
    hidden, weight, _, targets = example(torch.float32)
    hidden.requires_grad_()
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chunked = linear_cross_entropy_sum(hidden, weight, targets, chunk_size=4)
    plain = cross_entropy_sum(F.linear(hidden, weight), targets)
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, plain, rtol=2e-2, atol=0)
    grad_hidden, grad_weight = torch.autograd.grad(chunked, (hidden, weight))
    assert grad_hidden.dtype == grad_weight.dtype == torch.float32
    expected = torch.autograd.grad(plain, (hidden, weight))
    torch.testing.assert_close(grad_weight, expected[1], rtol=0.1, atol=0.05)


def test_frozen_head_gets_no_gradient_and_hidden_still_does() -> None:
    hidden, weight, _, targets = example(torch.float64)
    hidden.requires_grad_()
    linear_cross_entropy_sum(hidden, weight, targets).backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert hidden.grad[targets == IGNORE].abs().sum() == 0


def test_second_backward_is_refused_instead_of_being_wrong() -> None:
    hidden, weight, _, targets = example(torch.float64)
    loss = linear_cross_entropy_sum(hidden.requires_grad_(), weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()


def test_value_alone_is_computed_without_gradients() -> None:
    hidden, weight, _, targets = example(torch.float64)
    with torch.no_grad():
        chunked = linear_cross_entropy_sum(hidden, weight, targets, chunk_size=4)
    torch.testing.assert_close(chunked, cross_entropy_sum(F.linear(hidden, weight), targets))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 4, 1000])
def test_evaluation_counts_the_loss_and_the_hits_of_plain_logits(chunk_size: int, bias: bool) -> None:
    hidden, weight, offset, targets = example(torch.float64, bias=bias)
    logits = F.linear(hidden, weight, offset)
    targets[1, :3] = logits[1, :3].argmax(-1)
    loss, hits = linear_cross_entropy_and_hits(hidden, weight, targets, bias=offset, chunk_size=chunk_size)
    torch.testing.assert_close(loss, cross_entropy_sum(logits, targets), rtol=1e-12, atol=0)
    assert int(hits) == int(((logits.argmax(-1) == targets) & (targets != IGNORE)).sum()) >= 3
