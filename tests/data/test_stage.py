"""Opening stages of a plan on the built-in text: what comes when, and what is held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmplay.data import IGNORED, open_stage, open_validation
from lmplay.data.rows.diet import open_parts as _parts
from lmplay.plans import Plan, load_plan, parse_plan
from lmplay.utils.errors import LMPlayError


def plan_of(*stages: dict[str, Any], **datasets: dict[str, Any]) -> Plan:
    datasets = datasets or {"pydocs": {"source": "builtin", "args": {"name": "pydocs"}, "validation": {"share": 0.2}}}
    return parse_plan({"version": 1, "datasets": datasets, "stages": list(stages)}, name="test", folder=Path())


PYDOCS = plan_of({"name": "one", "datasets": {"pydocs": 1}, "epochs": 2})


def test_each_epoch_holds_each_token_once_as_input_and_once_as_target() -> None:
    stage = open_stage(PYDOCS, 0, sequence_length=100)
    training, _ = _parts(PYDOCS, "pydocs", None)
    expected = Counter(training.tokens(0, training.num_tokens).tolist())
    assert stage.num_rows == 2 * stage.rows_per_epoch
    orders = []
    for epoch in range(2):
        batch = stage.rows(epoch * stage.rows_per_epoch, stage.rows_per_epoch)
        real = batch.targets != IGNORED
        assert Counter(batch.targets[real].tolist()) == expected
        assert Counter(batch.tokens[real].tolist()) == expected
        assert real.mean() > 0.99
        orders.append(batch.tokens)
    assert not np.array_equal(*orders)


def test_targets_are_what_follows() -> None:
    batch = open_stage(PYDOCS, 0, sequence_length=64).rows(3, 50)
    real = batch.targets[:, :-1] != IGNORED
    assert np.array_equal(batch.targets[:, :-1][real], batch.tokens[:, 1:][real])


def test_rows_do_not_depend_on_how_they_are_asked_for() -> None:
    stage = open_stage(load_plan("quickstart"), 0, sequence_length=32)
    whole = stage.rows(1000, 60)
    again = open_stage(load_plan("quickstart"), 0, sequence_length=32)
    for row in (59, 0, 17):
        assert np.array_equal(again.rows(1000 + row, 1).tokens[0], whole.tokens[row])
        assert np.array_equal(again.rows(1000 + row, 1).targets[0], whole.targets[row])


def test_seeds_change_the_order_and_only_the_order() -> None:
    first, other = (open_stage(PYDOCS, 0, sequence_length=100, seed=seed) for seed in (0, 1))
    assert first.key != other.key
    assert first.num_rows == other.num_rows
    assert not np.array_equal(first.rows(0, 4).tokens, other.rows(0, 4).tokens)


def test_held_out_documents_are_never_trained_on() -> None:
    training, held = _parts(PYDOCS, "pydocs", None)
    assert held.num_documents
    assert not np.isin(held.documents(), training.documents()).any()
    assert training.num_tokens + held.num_tokens == training.store.num_tokens


def test_validation_covers_the_held_out_text_in_order() -> None:
    validation = open_validation(PYDOCS, sequence_length=50)
    _, held = _parts(PYDOCS, "pydocs", None)
    batch = validation.rows(0, validation.num_rows)
    assert batch.targets[batch.targets != IGNORED].tolist() == held.tokens(1, held.num_tokens).tolist()
    text_bytes = sum(len(value) for value in map(validation_bytes, held.tokens(1, held.num_tokens).tolist()))
    assert validation.bytes_per_token == pytest.approx(text_bytes / (held.num_tokens - 1))


def validation_bytes(token: int) -> bytes:
    from lmplay.utils import get_tokenizer

    tokenizer = get_tokenizer()
    return b"" if token == tokenizer.eot_token else tokenizer.decode_single_token_bytes(token)


def test_a_plan_from_the_hub_without_a_network_points_to_the_quickstart() -> None:
    with pytest.raises(LMPlayError, match="--plan quickstart") as caught:
        open_stage(load_plan("default"), 0, sequence_length=128)
    assert "\n" not in str(caught.value)


def test_data_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, lmplay.data; print([m for m in ('torch', 'datasets', 'pyarrow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("packing", ["stream", "document"])
def test_any_ten_thousand_rows_of_seven_to_three_hold_the_shares_of_tokens(packing: Any) -> None:
    names = ("pydocs", "stdlib")
    datasets = {name: {"source": "builtin", "args": {"name": name}} for name in names}
    stage = {"name": "mix", "datasets": {"pydocs": 0.7, "stdlib": 0.3}, "samples": 15_000}
    data = open_stage(plan_of(stage, **datasets), 0, sequence_length=16, packing=packing)
    tokens = (data.rows(0, 15_000).targets != IGNORED).sum(axis=1)
    of_pydocs = np.array([data.dataset_of(row) == "pydocs" for row in range(15_000)])
    both, first = (np.concatenate([[0], np.cumsum(counted)]) for counted in (tokens, tokens * of_pydocs))
    shares = (first[10_000:] - first[:-10_000]) / (both[10_000:] - both[:-10_000])
    assert shares.size == 5001
    assert np.abs(shares - 0.7).max() < 0.001


@pytest.mark.parametrize("packing", ["stream", "document", "pad"])
def test_weights_are_shares_of_tokens_whatever_the_packing(tmp_path: Path, packing: Any) -> None:
    import json

    for name, words in (("short", 20), ("long", 150)):
        rows = [json.dumps({"text": f"{n} " + "word " * words}) + "\n" for n in range(400)]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    plan = parse_plan(
        {
            "version": 1,
            "datasets": {
                name: {"source": "json", "args": {"data_files": f"{name}.jsonl"}} for name in ("short", "long")
            },
            "stages": [{"name": "s", "datasets": {"short": 0.7, "long": 0.3}, "tokens": 60_000}],
        },
        name="test",
        folder=tmp_path,
    )
    stage = open_stage(plan, 0, sequence_length=256, packing=packing)
    tokens = Counter[str]()
    for row in range(stage.num_rows):
        tokens[stage.dataset_of(row)] += stage.rows(row, 1).num_targets
    assert tokens["short"] / tokens.total() == pytest.approx(0.7, abs=0.01)
    assert tokens.total() == pytest.approx(60_000, rel=0.02)
    assert sum(stage.dataset_rows().values()) == stage.num_rows
