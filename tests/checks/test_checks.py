"""Every registered experiment passes, and every broken model fails for the right reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch

from lmplay.base.base_model import BasicModelRunner, LMBase
from lmplay.base.runner_list import MODEL_RUNNERS, get_runner
from lmplay.checks import CHECKS, CheckResult, Report, Subject, run_checks
from lmplay.checks import cost as cost_module
from lmplay.checks import learning as learning_module
from lmplay.checks.gradients import norms_by_block
from lmplay.checks.subject import tiny_settings
from lmplay.utils.errors import WrongUsageError
from tests.checks import families, sound
from tests.checks.broken import answering, caching, learning, looking_ahead, remembering

SMALL = {"num_blocks": 2, "embed_dim": 32, "num_heads": 2, "max_len": 32}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_module, "STEPS", 40)


def subject_of(model_class: type[LMBase], **settings: Any) -> Subject:
    runner = BasicModelRunner(model_class, overrides={} if model_class is sound.PlainList else SMALL)
    runner.name = model_class.__name__
    return Subject(runner, settings=settings)


def ask(model_class: type[LMBase], check: str, **settings: Any) -> CheckResult:
    (result,) = run_checks(subject_of(model_class, **settings), [check])
    return result


@cache
def report_of(model_class: type[LMBase], settings: tuple[tuple[str, Any], ...]) -> dict[str, CheckResult]:
    """Several names are one and the same model once they are tiny; each such model is asked once."""
    runner = BasicModelRunner(model_class, overrides=dict(settings))
    return {result.name: result for result in run_checks(Subject(runner))}


@pytest.mark.parametrize("name", list(MODEL_RUNNERS))
def test_every_registered_experiment_passes_every_check(name: str) -> None:
    runner = get_runner(name)
    settings = {**runner.overrides, **tiny_settings(runner)}
    results = report_of(runner.model_class, tuple(sorted(settings.items())))
    assert list(results) == list(CHECKS)
    assert [result for result in results.values() if not result.ok] == []
    skipped = {result.name for result in results.values() if result.skipped}
    assert skipped == ({"causality", "cache"} if not runner.model_class.causal else set())


BROKEN = [
    (looking_ahead.FutureLeak, "causality", "position 0 sees token 1:", "every position sees the whole text"),
    (looking_ahead.GatedLeak, "causality", "position 0 sees token 1:", "every position sees the whole text"),
    (looking_ahead.LeakInTraining, "causality", "in training mode", "only the path that training takes looks ahead"),
    (looking_ahead.TransposedMask, "causality", "position 0 sees token 1:", "the mask is transposed"),
    (looking_ahead.MaskOffByOne, "causality", "position 0 sees token 1:", "off by one: a position sees the next token"),
    (looking_ahead.BlindToTokens, "causality", "no logit moves when all tokens change", "do not depend on the tokens"),
    (looking_ahead.LooksAcrossBlocks, "causality", "position 27 sees token 28", "the border at token 28 is not"),
    (caching.WrongPositions, "cache", "1 row token by token: position 1 differs", "true length of the cache"),
    (caching.PositionsByRows, "cache", "3 rows token by token", "a single row is right and several are not"),
    (caching.CacheNotRead, "cache", "position 1 differs", "the cache is not read"),
    (caching.ForgetsTheBatch, "cache", "in rows 1, 2", "a single row is right and several are not"),
    (caching.ChunkSeesItself, "cache", "in chunks", "a chunk after a cache that is not empty"),
    (caching.IgnoresPadding, "cache", "left padding of 15", "declares supports_left_padding"),
    (caching.RotatesFromZero, "cache", "1 row token by token: position 1 differs", "its rotation or bias"),
    (caching.BiasFromZero, "cache", "1 row token by token: position 1 differs", "its rotation or bias"),
    (caching.SeesFirstKeyOnly, "cache", "1 row token by token: position 1 differs", "the first key only"),
    (caching.WindowOneTooWide, "cache", "1 row token by token: position 6 differs", "a window must count its keys"),
    (caching.CountsItself, "cache", "taken back from 31 to 16 positions", "something beside the cache remembers"),
    (caching.AllLogitsWithCache, "cache", "logits have the shape (1, 8,", "only the logits of the last token"),
    (caching.LogitsAloneWithCache, "cache", "returns Tensor, no pair", "end forward() with"),
    (learning.NotANumber, "cache", "differs by inf", "see the check initial_loss"),
    (remembering.DropoutAlwaysOn, "cache", "position 0 differs", "see the check eval_mode"),
    (learning.ForgottenGrad, "gradients", "frozen: pos_embed", "requires_grad is off"),
    (learning.UnusedHead, "gradients", "none: extra.weight, extra.bias", "never used on the way to the loss"),
    (learning.SwitchedOff, "gradients", "zero: extra.weight, extra.bias", "a factor of zero"),
    (learning.Exploding, "gradients", "huge: ", "gradients explode"),
    (learning.NotANumber, "gradients", "nan: ", "not a number"),
    (learning.NotANumber, "initial_loss", "nan, ln(50257)", "not a number"),
    (learning.NotANumber, "learns", "not a number after 0 steps", ""),
    (learning.SureAtFirst, "initial_loss", "ln(50257) = 10.82", "starts too large"),
    (learning.KnowsTooMuch, "initial_loss", "ln(50257) = 10.82", "knows too much for an untrained model"),
    (learning.TwoTruths, "initial_loss", "differs from forward(x)", "both must compute the same"),
    (learning.LossOfItsInput, "initial_loss", "train_loss() gives", "shifted by one already"),
    (remembering.SharesRows, "batch_independence", "from the same row alone", "a mean or a norm over the batch"),
    (remembering.BatchNormed, "batch_independence", "in training mode", "BatchNorm"),
    (learning.Deaf, "learns", "10.82 to 10.82 in 8 steps", "not connected to the weights"),
    (remembering.OtherRandomness, "determinism", "differ in noise", "no generator that is seeded"),
    (remembering.Counts, "determinism", "the same step twice differs in the loss", "state that a pass leaves behind"),
    (remembering.Counts, "eval_mode", "two passes in eval mode differ", "state that a pass leaves behind"),
    (remembering.Unsaved, "determinism", "after saving and loading", "neither a parameter nor a buffer"),
    (remembering.DropoutAlwaysOn, "eval_mode", "two passes in eval mode differ", "dropout that is always on"),
    (remembering.StaysInTraining, "eval_mode", "still in training mode after eval(): dropout", "train() is overridden"),
    (remembering.CallsEval, "eval_mode", "leaves in eval mode: the model", "forward() calls eval()"),
    (learning.NeedsFloat32, "precision", "of their spread", "needs float32"),
    (learning.CompiledDiffers, "compile", "compiled, the loss is", "behind the compiler's back"),
    (answering.ReturnsPair, "causality", "returns tuple", "the logits alone"),
    (answering.TransposedLogits, "cost", "logits have the shape (1, 50257, 4), not (1, 4, 50257)", "of every position"),
    (answering.WholeNumbers, "cost", "logits are int64", "of every position"),
    (answering.FewLogits, "cost", "logits for 99 tokens, and the tokenizer has 50257", "as wide as the vocabulary"),
    (answering.Probabilities, "cost", "sum to 1", "apply softmax themselves"),
    (answering.WritesIntoItsInput, "cost", "changes the token ids", "work on a copy"),
    (answering.ShortTable, "cost", "IndexError: index out of range", "positions go from 0 to max_len - 1"),
    (answering.Bare, "cost", "no parameters", "use nn.ModuleList"),
    (learning.LossAlone, "gradients", "train_loss() returned Tensor; wanted is {", "docs/models.md"),
    (looking_ahead.ScanAcrossChunks, "causality", "position 7 sees token 8", "the border at token 8 and others"),
    (looking_ahead.NormOverTime, "causality", "position 0 sees token 1:", "something is averaged over time"),
    (looking_ahead.SoftmaxOverQueries, "causality", "position 0 sees token 1:", "every position sees the whole text"),
    (
        learning.CutResidual,
        "gradients",
        "wrong in pos_embed, tok_embed, blocks.0, right in blocks.1",
        "detach(), .data",
    ),
    (learning.SilentlyStraightThrough, "gradients", "not the slope of the loss", "surrogate_gradients = True"),
    (learning.TiedByData, "gradients", "same memory: fc.weight and tok_embed.weight", "assign the parameter itself"),
    (learning.PositionsNotTrained, "gradients", "none: pos_embed", "never used on the way to the loss"),
    (learning.LossByRow, "initial_loss", "train_loss() gives", "a mean over rows weighs short rows too much"),
    (learning.LossOfEveryTarget, "initial_loss", "train_loss() gives", "below 0 (-100) do not count"),
    (remembering.CapacityOfTheBatch, "batch_independence", "from the same row alone", "an expert's capacity"),
    (remembering.IgnoresDocuments, "batch_independence", "packed into one row", "token_positions(x, cache, documents)"),
    (remembering.SeedsItself, "determinism", "seeds the random generator of torch", "manual_seed()"),
    (remembering.DrawsAlways, "eval_mode", "draws random numbers of torch", "only under self.training"),
    (remembering.CountsInABuffer, "eval_mode", "changes tokens_seen", "only under self.training"),
    (remembering.CountsInABuffer, "determinism", "a forward pass has changed tokens_seen", "see the check eval_mode"),
    (remembering.NormalisesWeights, "eval_mode", "changes tok_embed.weight", "writes into weights or buffers"),
    (answering.WideParameter, "cost", "parameters in float64: gate", "dtype=torch.float32"),
    (answering.WideTable, "cost", "to have the same dtype", "numpy's are float64"),
    (answering.WideLogits, "cost", "logits are float64", "dtype=torch.float32"),
    (answering.MakesLayers, "cost", "forward(x) makes parameters: extra.weight", "in the constructor"),
    (answering.OnTheCPU, "cost", "a tensor (1, 32, 1) of the CPU meets the model's in add (answering.py", "arange(T)"),
    (answering.LeavesItsTableBehind, "cost", "a tensor (32,) of the CPU", "register_buffer moves with the model"),
]


@pytest.mark.parametrize(
    ("model_class", "check", "evidence", "cause"), BROKEN, ids=[f"{row[0].__name__}-{row[1]}" for row in BROKEN]
)
def test_a_broken_model_fails_for_the_right_reason(
    monkeypatch: pytest.MonkeyPatch, model_class: type[LMBase], check: str, evidence: str, cause: str
) -> None:
    monkeypatch.setattr(learning_module, "STEPS", 8)
    result = ask(model_class, check)
    assert not result.ok
    assert not result.skipped
    assert evidence in result.evidence
    assert cause in result.cause


@pytest.mark.parametrize("model_class", families.SOUND, ids=lambda model_class: model_class.__name__)
def test_sound_models_of_other_families_pass(model_class: type[LMBase]) -> None:
    asked = [name for name in CHECKS if name not in ("compile", "learns", "initial_loss", "determinism")]
    results = {result.name: result for result in run_checks(subject_of(model_class), asked)}
    assert [result for result in results.values() if not result.ok] == []
    assert ("no cache" in results["cache"].evidence) == results["cache"].skipped == (model_class is families.Scan)


def test_a_model_that_means_it_is_not_held_to_the_slope_of_its_loss() -> None:
    assert ask(sound.StraightThrough, "gradients").ok


def test_what_float16_cannot_hold_is_named_and_fails_the_model_that_trains_in_it() -> None:
    subject = subject_of(learning.Overflowing)
    (result,) = run_checks(subject, ["precision"])
    assert result.ok
    assert re.search(r"float16 would overflow at \S+ in blocks\.0\.ff\.up", result.evidence)
    subject.runner.train_preset["precision"] = "fp16"
    (result,) = run_checks(subject, ["precision"])
    assert not result.ok
    assert "largest number is 65,504" in result.cause


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "compile"])
def test_a_model_with_a_cache_of_its_own_in_a_plain_list_passes(check: str) -> None:
    result = ask(sound.PlainList, check)
    assert result.ok, result


def test_a_layer_that_starts_at_zero_counts_once_a_step_has_woken_it() -> None:
    result = ask(sound.ZeroAtFirst, "gradients")
    assert result.ok
    assert "woken by a step: extra.bias, extra.weight" in result.evidence


def test_a_leak_across_the_border_of_a_long_block_is_found() -> None:
    result = ask(looking_ahead.LooksAcrossLongBlocks, "causality", max_len=70)
    assert "position 63 sees token 64" in result.evidence


def test_weights_that_parts_share_are_named() -> None:
    result = ask(sound.OneBlockTwice, "gradients")
    assert result.ok
    assert "shared weights: blocks.1 with blocks.0" in result.evidence


def test_what_only_some_batches_reach_counts_once_one_has_reached_it() -> None:
    result = ask(sound.SomeExperts, "gradients")
    assert result.ok, result
    assert "reached by some batches only: extra." in result.evidence
    assert re.search(r"by none of 7, though others of their kind were: .*extra\.23\.weight", result.evidence)


def test_randomness_is_not_held_against_determinism() -> None:
    assert ask(sound.DrawsFromPython, "determinism").ok
    assert ask(remembering.DropoutAlwaysOn, "determinism").ok  # eval_mode tells


def test_parameters_tagged_as_frozen_are_named_and_not_held_against_the_model() -> None:
    result = ask(sound.FrozenOnPurpose, "gradients")
    assert result.ok
    assert "frozen on purpose: pos_embed" in result.evidence
    row = next(row for row in result.gradients if row.name == "pos_embed")
    assert (row.frozen, row.status, row.grad_norm, row.shape) == (True, "none", None, (1, 32, 32))


def test_gradient_norms_equal_those_of_a_plain_backward_pass() -> None:
    subject = subject_of(
        MODEL_RUNNERS["test_runner"]().model_class, attn_dropout=0.0, ff_dropout=0.0, embed_dropout=0.0
    )
    (result,) = run_checks(subject, ["gradients"])
    model = subject.build()
    batch = subject.batch
    torch.nn.functional.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten()).backward()
    for row in result.gradients:
        parameter = model.get_parameter(row.name)
        assert parameter.grad is not None
        weight = float(parameter.detach().norm())
        assert row.grad_norm == pytest.approx(float(parameter.grad.norm()), rel=1e-5)
        assert row.ratio == (pytest.approx(row.grad_norm / weight, rel=1e-5) if weight else None)
    blocks = norms_by_block(result.gradients)
    assert list(blocks) == ["pos_embed", "tok_embed", "blocks.0", "blocks.1", "ln", "fc"]
    squares = sum(float(p.grad.norm()) ** 2 for p in model.blocks[1].parameters() if p.grad is not None)
    assert blocks["blocks.1"] == pytest.approx(squares**0.5, rel=1e-5)


def test_graph_breaks_are_named_and_not_held_against_the_model() -> None:
    result = ask(sound.BreaksTheGraph, "compile")
    assert result.ok
    assert "break" in result.evidence
    assert "graph_break()" in result.evidence


def test_a_model_that_does_not_fit_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_module, "free_memory", lambda _: 50_000_000)
    result = ask(MODEL_RUNNERS["test_runner"]().model_class, "cost")
    assert not result.ok
    assert "not one row fits into the 48 MiB free on cpu" in result.evidence


def test_a_forward_pass_that_raises_is_said_once_with_its_place() -> None:
    results = list(run_checks(subject_of(answering.Raises)))
    assert [result.name for result in results] == list(CHECKS)
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied (answering.py, line" in results[0].evidence
    assert all(result.skipped and not result.ok for result in results[1:])


def test_the_report_has_the_shape_that_is_promised() -> None:
    report = Report("FutureLeak")
    report.checks.extend(run_checks(subject_of(looking_ahead.FutureLeak), ["gradients", "causality"]))
    answer = report.to_dict()
    assert (answer["experiment"], answer["ok"]) == ("FutureLeak", False)
    assert [set(check) for check in answer["checks"]] == [{"name", "ok", "skipped", "evidence", "cause", "seconds"}] * 2
    assert answer["gradients"][0] == {
        "name": "pos_embed",
        "shape": [1, 32, 32],
        "status": "ok",
        "grad_norm": report.gradients[0].grad_norm,
        "frozen": False,
        "ratio": report.gradients[0].ratio,
    }


def test_checks_leave_the_global_random_state_and_the_model_alone() -> None:
    subject = subject_of(MODEL_RUNNERS["test_runner"]().model_class)
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    names = [name for name in CHECKS if name not in ("compile", "learns")]
    assert all(result.ok for result in run_checks(subject, names))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.model.state_dict().items())


def test_an_unknown_check_and_an_unknown_setting_are_wrong_usage() -> None:
    subject = subject_of(MODEL_RUNNERS["test_runner"]().model_class)
    with pytest.raises(WrongUsageError, match="did you mean causality"):
        next(run_checks(subject, ["casuality"]))
    with pytest.raises(WrongUsageError, match=r"did you mean model\.num_blocks"):
        next(run_checks(subject_of(subject.runner.model_class, num_block=1)))


def test_results_come_one_by_one() -> None:
    results: Iterator[CheckResult] = run_checks(subject_of(MODEL_RUNNERS["test_runner"]().model_class))
    assert next(results).name == "gradients"
