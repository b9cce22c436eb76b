"""Attention within documents by blocks: the same numbers as with a mask, and the mask where the kernel fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lmplay.modules import MultiheadAttention, packed_attention
from lmplay.modules.masks import document_mask
from lmplay.modules.packed_attention import document_blocks


@pytest.fixture(autouse=True)
def working_kernel() -> Iterator[None]:
    packed_attention._Kernel.works = True
    yield
    packed_attention._Kernel.works = True


def packed_row() -> tuple[torch.Tensor, torch.Tensor]:
    """(states (1, 260, 32), document of each position): documents that end within blocks and fill more than one."""
    generator = torch.Generator().manual_seed(0)
    documents = torch.tensor([[0] * 20 + [1] * 140 + [2] * 1 + [3] * 99], dtype=torch.int32)
    return torch.randn(1, 260, 32, generator=generator), documents


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [True, False])
def test_blocks_give_what_the_mask_gives(causal: bool) -> None:
    x, documents = packed_row()
    layer = MultiheadAttention(32, 2, causal=causal).eval().requires_grad_(False)
    mask = document_mask(documents, causal=causal)
    expected = layer(x, mask=mask)
    mask.blocks = document_blocks(documents, causal=causal)  # type: ignore[attr-defined] - as on CUDA
    torch.testing.assert_close(layer(x, mask=mask), expected)


def test_a_kernel_that_fails_is_left_for_the_mask_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler here")

    x, documents = packed_row()
    layer = MultiheadAttention(32, 2).eval().requires_grad_(False)
    mask = document_mask(documents)
    expected = layer(x, mask=mask)
    mask.blocks = document_blocks(documents, causal=True)  # type: ignore[attr-defined]
    monkeypatch.setattr(packed_attention, "flex_attention", fails)
    with pytest.warns(UserWarning, match="no compiler here"):
        assert torch.equal(layer(x, mask=mask), expected)
    assert torch.equal(layer(x, mask=mask), expected)  # not tried again


def test_dropout_takes_the_mask() -> None:
    x, documents = packed_row()
    assert not packed_attention.takes_packed_attention(
        x.unsqueeze(1), document_blocks(documents, causal=True), dropout=0.1
    )
