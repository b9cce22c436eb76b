"""The size of the pieces never changes the result: every split of a batch gives the same gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lmplay.base.base_model import hidden_of
from lmplay.base.runner_list import get_runner
from lmplay.data import Batch
from lmplay.modules.losses import IGNORE
from lmplay.train.config import TrainConfig
from lmplay.train.feed import to_device
from lmplay.train.update.objective import Objective
from lmplay.train.update.optimizers import build_optimizer
from lmplay.train.update.step import TrainStep

CPU = torch.device("cpu")
ROWS, LENGTH = 6, 12


def uneven_batch() -> Batch:
    """Rows with 12, 5, 0, 1, 12 and 7 targets: a mean over the pieces' means would be wrong for nearly every split."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 50257, (ROWS, LENGTH))
    targets = generator.integers(0, 50257, (ROWS, LENGTH))
    for row, kept in enumerate((12, 5, 0, 1, 12, 7)):
        targets[row, kept:] = IGNORE
    return Batch(tokens=tokens, targets=targets, documents=None)


def tiny(dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(0)
    runner = get_runner("test_runner")
    model = runner.build_model(max_len=LENGTH, embed_dim=16, attn_dropout=0.0, ff_dropout=0.0, embed_dropout=0.0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype)


def gradients(form: str, piece_size: int, dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = tiny(dtype)
    config = TrainConfig.model_validate({"batch_size": ROWS, "mini_batch_size": piece_size, "loss": form})
    step = TrainStep(model, build_optimizer(model, config, CPU), config, CPU)
    batch = to_device(uneven_batch(), first_row=0, piece_size=piece_size, device=CPU)
    loss = step.accumulate(batch)["loss"]
    return loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("form", ["plain", "chunked"])
def test_every_split_gives_the_same_loss_and_gradients_in_float64(form: str) -> None:
    loss, expected = gradients("plain", ROWS, torch.float64)
    for piece_size in range(1, ROWS + 1):
        other, found = gradients(form, piece_size, torch.float64)
        torch.testing.assert_close(other, loss, rtol=1e-12, atol=0)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(
                gradient, expected[name], rtol=1e-9, atol=1e-14, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_every_split_is_equal_to_rounding_in_float32() -> None:
    _, expected = gradients("plain", ROWS, torch.float64)
    for piece_size in (1, 4, ROWS):
        _, found = gradients("auto", piece_size, torch.float32)
        for name, gradient in found.items():
            scale = expected[name].abs().max()
            torch.testing.assert_close(gradient.double() / scale, expected[name] / scale, rtol=0, atol=2e-6)


def test_the_loss_is_the_mean_over_all_targets_of_the_batch() -> None:
    model, batch = tiny(torch.float64), uneven_batch()
    logits = model(torch.from_numpy(batch.tokens))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten())
    loss, _ = gradients("chunked", 2, torch.float64)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)


def test_a_models_own_terms_are_weighted_like_the_loss() -> None:
    def loss_of(piece_size: int) -> dict[str, torch.Tensor]:
        model = tiny(torch.float64)

        def own(piece):  # type: ignore[no-untyped-def]
            logits = model(piece.tokens)
            keep = piece.targets != IGNORE
            mean = torch.nn.functional.cross_entropy(logits[keep], piece.targets[keep])
            return {"loss": mean, "size": logits[keep].square().mean() * 1e-3}

        model.train_loss = own
        config = TrainConfig(batch_size=ROWS, mini_batch_size=piece_size)
        step = TrainStep(model, build_optimizer(model, config, CPU), config, CPU)
        terms = step.accumulate(to_device(uneven_batch(), first_row=0, piece_size=piece_size, device=CPU))
        return {**terms, "grad": model.fc.weight.grad}

    whole, split = loss_of(ROWS), loss_of(2)
    assert whole.keys() == {"loss", "size", "grad"}
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-9, atol=1e-14)


def test_a_subclass_that_changes_forward_alone_is_trained_through_its_forward() -> None:
    from lmplay.exp.gpt2ish.model import GPT2

    class Shifted(GPT2):
        def forward(self, x, cache=None):  # type: ignore[no-untyped-def]
            return super().forward(x, cache) * 0.5

    model = Shifted(max_len=LENGTH, num_heads=2, num_blocks=1, embed_dim=16).eval()
    piece = to_device(uneven_batch(), first_row=0, piece_size=ROWS, device=CPU).pieces[0]
    assert hidden_of(model) is None
    expected = torch.nn.functional.cross_entropy(
        model(piece.tokens).flatten(0, 1), piece.targets.flatten(), reduction="sum"
    )
    torch.testing.assert_close(Objective(model, "auto")(piece)["loss"], expected)


def test_a_batch_without_any_target_changes_nothing() -> None:
    model = tiny(torch.float32)
    batch = uneven_batch()
    empty = Batch(tokens=batch.tokens, targets=np.full_like(batch.targets, IGNORE), documents=None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = TrainConfig(batch_size=ROWS, mini_batch_size=4)
    step = TrainStep(model, build_optimizer(model, config, CPU), config, CPU)
    result = step(to_device(empty, first_row=0, piece_size=4, device=CPU), 1e-3)
    assert torch.isnan(result.loss)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
