"""The auxiliary loss and the model without a causal mask."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from lmplay.base.runner_list import get_runner

SMALL = {"num_blocks": 1, "embed_dim": 16, "num_heads": 2, "max_len": 12}
WITHOUT_DROPOUT = {"attn_dropout": 0.0, "ff_dropout": 0.0, "embed_dropout": 0.0}


@dataclass(frozen=True)
class Batch:
    tokens: torch.Tensor
    targets: torch.Tensor
    documents: torch.Tensor | None = None


@pytest.fixture
def batch() -> Batch:
    ids = torch.randint(50257, (3, 13), generator=torch.Generator().manual_seed(0))
    targets = ids[:, 1:].clone()
    targets[0, :7] = -100
    targets[2, 5:] = -100
    return Batch(ids[:, :-1], targets)


def test_the_terms_are_the_plain_losses_of_the_next_token_and_of_the_one_after_it(batch: Batch) -> None:
    torch.manual_seed(0)
    model = get_runner("gpt2ish_with_aux_loss").build_model(**SMALL, **WITHOUT_DROPOUT, aux_weight=0.5).double()
    terms = model.train_loss(batch)
    count = int((batch.targets != -100).sum())
    expected = F.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())
    torch.testing.assert_close(terms["loss"], expected)

    further = model.fc(model.aux_ln(model.aux_block(model.trunk(batch.tokens))))  # (B, T, V)
    total = torch.zeros((), dtype=torch.double)
    for row in range(3):
        for position in range(11):
            target = int(batch.targets[row, position + 1])
            if target != -100:
                total -= further[row, position].log_softmax(dim=-1)[target]
    torch.testing.assert_close(terms["next_but_one"], 0.5 * total / count)
    assert list(terms) == ["loss", "next_but_one"]


def test_the_auxiliary_gradient_does_not_depend_on_the_size_of_the_pieces(batch: Batch) -> None:
    torch.manual_seed(0)
    model = get_runner("gpt2ish_with_aux_loss").build_model(**SMALL, **WITHOUT_DROPOUT).double()
    count = int((batch.targets != -100).sum())
    gradients = []
    for sizes in ((3,), (1, 2), (1, 1, 1)):
        model.zero_grad()
        for tokens, targets in zip(batch.tokens.split(sizes), batch.targets.split(sizes), strict=True):
            share = int((targets != -100).sum()) / count
            (share * torch.stack(list(model.train_loss(Batch(tokens, targets)).values())).sum()).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for other in gradients[1:]:
        for name, gradient in other.items():
            torch.testing.assert_close(gradient, gradients[0][name], msg=name)


def test_the_token_after_the_next_is_never_one_of_another_document(batch: Batch) -> None:
    torch.manual_seed(0)
    model = get_runner("gpt2ish_with_aux_loss").build_model(**SMALL, **WITHOUT_DROPOUT).double()
    lengths = (5, 7)
    documents = torch.repeat_interleave(torch.arange(2), torch.tensor(lengths)).expand(3, 12)
    targets = batch.targets.clone()
    targets[:, 4] = -100  # the last token of a document has no target
    packed = model.train_loss(Batch(batch.tokens, targets, documents))
    alone = [
        (model.train_loss(Batch(tokens, wanted)), int((wanted != -100).sum()))
        for tokens, wanted in zip(batch.tokens.split(lengths, 1), targets.split(lengths, 1), strict=True)
    ]
    for name, term in packed.items():
        total = sum(terms[name] * count for terms, count in alone)
        torch.testing.assert_close(term, total / sum(count for _, count in alone))


def test_without_a_mask_the_first_position_sees_the_last_token() -> None:
    torch.manual_seed(0)
    model = get_runner("gpt2ish_noncausal").build_model(**SMALL).eval()
    assert model.causal is False
    tokens = torch.arange(12)[None]
    changed = tokens.clone()
    changed[0, -1] = 500
    with torch.no_grad():
        assert not torch.equal(model(tokens)[0, 0], model(changed)[0, 0])
