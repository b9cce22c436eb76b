"""Attention with dropout on a CPU against torch's own, written out, with the same weights dropped."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lmplay.modules import Dropout, MultiheadAttention
from lmplay.modules.dropout import kept_share
from lmplay.modules.dropped_attention import QUERIES, _attend, dropped_attention
from lmplay.modules.masks import document_mask

LENGTHS = (1, 5, QUERIES, 2 * QUERIES + 3)
SHARE = 0.25


def heads(length: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(2, 3, length, 8, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3)
    )


def kept_weights(q: torch.Tensor, kept: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """The bytes of the operator as a square mask (B, H, T, T); what causality hides counts as kept."""
    batch, num_heads, length, _ = q.shape
    whole = torch.ones(batch * num_heads, length, length, dtype=q.dtype)
    first = 0
    for start in range(0, length, QUERIES):
        stop = min(start + QUERIES, length)
        keys = stop if causal else length
        numel = batch * num_heads * (stop - start) * keys
        whole[:, start:stop, :keys] = kept[first : first + numel].view(batch * num_heads, stop - start, keys)
        first += numel
    assert first == kept.numel()
    return whole.view(batch, num_heads, length, length)


def written_out(q, k, v, kept, allowed):
    weights = (q @ k.transpose(-2, -1) / q.size(-1) ** 0.5).masked_fill(~allowed, float("-inf")).softmax(-1)
    return (weights * kept / kept_share(SHARE)) @ v


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", ["causal", "everything", "documents"])
def test_output_and_gradients_are_those_of_attention_written_out(length, kind):
    q, k, v = heads(length)
    documents = (torch.arange(length) // 4).expand(2, -1)
    mask = document_mask(documents) if kind == "documents" else None
    causal = kind == "causal"
    allowed = torch.ones(length, length, dtype=torch.bool)
    allowed = mask if mask is not None else (allowed.tril() if causal else allowed)

    torch.manual_seed(3)
    out = dropped_attention(q, k, v, dropout=SHARE, causal=causal, mask=mask)
    torch.manual_seed(3)
    kept = kept_weights(q, _attend(q.detach(), k.detach(), v.detach(), mask, SHARE, causal)[2], causal=causal)
    expected = written_out(q, k, v, kept, allowed)

    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    for own, wanted in zip(
        torch.autograd.grad(out, (q, k, v), upstream), torch.autograd.grad(expected, (q, k, v), upstream), strict=True
    ):
        torch.testing.assert_close(own, wanted)


def test_a_query_that_may_attend_to_nothing_gets_zeros_and_no_gradient():
    q, k, v = heads(6)
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[2] = False
    out = dropped_attention(q, k, v, dropout=SHARE, causal=False, mask=mask)
    out.sum().backward()
    assert (out[:, :, 2] == 0).all()
    assert (q.grad[:, :, 2] == 0).all()
    assert torch.isfinite(k.grad).all()


def test_the_mean_over_dropout_is_attention_without_it():
    q, k, v = (part.detach() for part in heads(16))
    torch.manual_seed(0)
    total = sum(dropped_attention(q, k, v, dropout=SHARE, causal=True) for _ in range(2000)) / 2000
    torch.testing.assert_close(total, F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=0.06, rtol=0)


def test_a_layer_with_dropout_repeats_under_a_seed_and_is_captured_whole():
    layer = MultiheadAttention(16, 2, attn_dropout=0.2)
    x = torch.randn(2, 7, 16)

    def loss() -> torch.Tensor:
        torch.manual_seed(1)
        return layer(x).square().sum()

    assert torch.equal(loss(), loss())
    explained = torch._dynamo.explain(layer)(x)
    assert explained.graph_break_count == 0


def test_dropout_keeps_its_share_and_the_mean_and_its_gradient_is_what_was_kept():
    torch.manual_seed(0)
    x = torch.ones(400, 500, requires_grad=True)
    y = Dropout(0.1)(x)
    zeros = (y == 0).double().mean()
    assert zeros == pytest.approx(0.1, abs=0.003)
    assert y.mean().item() == pytest.approx(1.0, abs=0.004)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.1)(x), y)


@pytest.mark.parametrize("share", [0.0, 1.0, 1e-9])
def test_dropout_that_bits_cannot_tell_is_torchs_own(share):
    torch.manual_seed(0)
    own = Dropout(share)(torch.ones(3, 4))
    torch.manual_seed(0)
    assert torch.equal(own, torch.nn.Dropout(share)(torch.ones(3, 4)))
