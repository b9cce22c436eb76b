"""Comparisons of planted runs: the numbers of an independent computation, and the right words."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import scipy.stats

from lmplay.runs.labels import change_labels, resolve_runs
from lmplay.stats.compare import compare_runs, group_by_seed
from lmplay.stats.curves import load_curve
from lmplay.stats.figure_data import group_series, load_series
from lmplay.stats.pictures import save_picture
from lmplay.stats.seeds import paired_test
from lmplay.stats.standing import Comparison
from lmplay.utils.errors import WrongUsageError

from .planted import plant

LMPlay = Callable[..., CompletedProcess[str]]


def validation_lines(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens, time, loss), read as anybody would read the file."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "validate"]
    return tuple(np.array([row[key] for row in rows], float) for key in ("tokens", "time", "loss"))  # type: ignore[return-value]


def compare(*names: str, **options: str) -> Comparison:
    stage = options.get("stage")
    return compare_runs([load_curve(path, stage=stage) for path in resolve_runs(names)], **options)  # type: ignore[arg-type]


@pytest.fixture
def seeds(runs_folder: Path) -> Path:
    for seed in range(4):
        plant(runs_folder, f"base-s{seed}", seed=seed)
        plant(runs_folder, f"wide-s{seed}", seed=seed, experiment="wide", margin=-0.08, flops=9e6, speed=0.8)
    return runs_folder


def test_numbers_equal_an_independent_computation(seeds: Path) -> None:
    found = compare("base-*", "wide-*")
    base, wide = found.standings
    assert (found.baseline, base.seeds, wide.seeds) == ("base", 4, 4)
    lines = {name: [validation_lines(seeds / f"{name}-s{seed}") for seed in range(4)] for name in ("base", "wide")}
    ends = {name: np.array([losses[-1] for _, _, losses in runs]) for name, runs in lines.items()}
    assert wide.validation_loss == pytest.approx(ends["wide"].mean())
    assert wide.deviation == pytest.approx(ends["wide"].std(ddof=1))
    expected = scipy.stats.ttest_rel(ends["wide"], ends["base"])
    interval = expected.confidence_interval(0.95)
    assert wide.test == "paired"
    assert wide.p_value == pytest.approx(expected.pvalue)
    assert wide.interval == pytest.approx((interval.low, interval.high))
    assert wide.perplexity == pytest.approx(np.exp(ends["wide"].mean()))
    # What each needs to the baseline's end, on the mean curves.
    target = ends["base"].mean()
    for index, speedup in ((0, wide.speedup_tokens), (1, wide.speedup_time)):
        x = lines["wide"][0][index]
        mean = np.mean([losses for _, _, losses in lines["wide"]], axis=0)
        needed = np.interp(-target, -mean, x)  # np.interp wants ascending places
        assert speedup == pytest.approx(lines["base"][0][index][-1] / needed)
    assert wide.speedup_tokens > 1.1 > 1.0 > wide.speedup_time / 1.1
    # Equal FLOPs: where the wider one has seen two thirds of the tokens.
    third = [np.interp(204_800 * 2 / 3, tokens, losses) for tokens, _, losses in lines["wide"]]
    assert wide.difference_at_equal_flops == pytest.approx(np.mean(third) - ends["base"].mean())


def test_known_margin_is_better_and_pure_noise_is_not(seeds: Path) -> None:
    for seed in range(4):
        plant(seeds, f"same-s{seed}", seed=seed, experiment="same")
    found = compare("base-*", "wide-*", "same-*")
    _, wide, same = found.standings
    assert wide.difference == pytest.approx(-0.08, abs=0.03)
    assert "wide is better than base" in wide.verdict
    assert "1.50 times the parameters" in wide.verdict
    assert "same can't be told from base" in same.verdict
    assert same.seeds_needed is None or same.seeds_needed > 4
    assert found.verdict == f"{wide.verdict} {same.verdict}"


def test_pure_noise_is_called_better_or_worse_no_more_often_than_one_in_twenty() -> None:
    dice = np.random.default_rng(0)
    wrong = sum(paired_test(dice.normal(size=3), dice.normal(size=3)).p_value < 0.05 for _ in range(2000))
    assert 0.03 < wrong / 2000 < 0.07


@pytest.mark.usefixtures("seeds")
def test_one_seed_each_is_said_plainly() -> None:
    found = compare("base-s0", "wide-s0")
    assert found.standings[1].interval is None
    assert found.standings[1].p_value is None
    assert "one seed each" in found.verdict
    assert "can't be told" in found.verdict


def test_run_and_its_copy_have_the_same_loss(seeds: Path) -> None:
    shutil.copytree(seeds / "base-s0", seeds / "copy")
    assert compare("base-s0", "copy").verdict.startswith("copy has the loss of base-s0, with one seed each")


def test_one_seed_against_many_uses_their_noise(seeds: Path) -> None:
    ends = [validation_lines(seeds / f"base-s{seed}")[2][-1] for seed in range(4)]
    one = validation_lines(seeds / "wide-s1")[2][-1]
    found = compare("base-*", "wide-s1").standings[1]
    assert found.test == "one against many"
    assert found.p_value == pytest.approx(scipy.stats.ttest_ind([one], ends).pvalue)
    mirrored = compare("wide-s1", "base-*").standings[1]
    assert mirrored.p_value == pytest.approx(found.p_value)
    assert mirrored.interval == pytest.approx((-found.interval[1], -found.interval[0]))


def test_seeds_that_do_not_match_are_tested_unpaired(seeds: Path) -> None:
    for seed in (10, 11, 12):
        plant(seeds, f"other-s{seed}", seed=seed, experiment="other")
    ends = {name: [validation_lines(run)[2][-1] for run in resolve_runs([name])] for name in ("base-*", "other-*")}
    found = compare("base-*", "other-*").standings[1]
    assert found.test == "welch"
    expected = scipy.stats.ttest_ind(ends["other-*"], ends["base-*"], equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(
    ("difference", "says"), [({"validation_key": "other"}, "validation key"), ({"tokenizer": "cl100k"}, "tokenizer")]
)
def test_other_validation_or_tokenizer_is_refused(seeds: Path, difference: dict[str, str], says: str) -> None:
    plant(seeds, "foreign", **difference)
    found = compare("base-s0", "foreign")
    assert not found.comparable
    assert found.standings == ()
    assert says in found.reasons[0]
    assert "can't be compared" in found.verdict


def test_crashed_run_is_compared_where_it_ended_and_said_so(seeds: Path) -> None:
    plant(seeds, "short", experiment="short", margin=-0.5, steps=100, state="failed")
    found = compare("base-s0", "short")
    assert found.x == 100 * 512
    tokens, _, losses = validation_lines(seeds / "base-s0")
    assert found.standings[0].validation_loss == pytest.approx(np.interp(found.x, tokens, losses))
    assert found.notes == ("short is failed and ended early: all are compared where it ended",)


def test_validations_at_other_places_and_gaps_are_interpolated(seeds: Path) -> None:
    path = plant(seeds, "sparse", experiment="sparse", every=77)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    gap = [
        json.dumps({**json.loads(line), "loss": "NaN"}) if '"step": 154,' in line and "validate" in line else line
        for line in lines
    ]
    (path / "metrics.jsonl").write_text("\n".join(gap) + "\n")
    found = compare("base-s0", "sparse")
    tokens, _, losses = validation_lines(seeds / "base-s0")
    assert found.x == 385 * 512
    assert found.standings[0].validation_loss == pytest.approx(np.interp(385 * 512, tokens, losses))
    assert not found.standings[1].diverged


def test_diverged_run_is_no_improvement_and_does_not_shorten_the_others(seeds: Path) -> None:
    plant(seeds, "wild", experiment="wild", margin=-1, nan_from=150)
    found = compare("base-s0", "wild", "wide-s0")
    assert found.x == 400 * 512
    assert found.standings[1].validation_loss is None
    assert "wild has diverged" in found.verdict
    assert json.loads(json.dumps(found.as_json()))["runs"][1]["difference"] is None


def test_stage_is_counted_from_its_beginning(seeds: Path) -> None:
    found = compare("base-s0", "wide-s0", stage="second")
    assert found.x == 200 * 512
    assert found.standings[0].validation_loss == pytest.approx(validation_lines(seeds / "base-s0")[2][-1])
    missing = compare("base-s0", "wide-s0", stage="third")
    assert missing.reasons[0] == "base-s0 has no validation in stage 'third' yet"


def test_one_group_is_shown_without_a_comparison(seeds: Path) -> None:
    alone = compare("base-*")
    assert (alone.comparable, len(alone.standings)) == (True, 1)
    ends = [validation_lines(seeds / f"base-s{seed}")[2][-1] for seed in range(4)]
    assert f"{np.mean(ends):.4f} ± {np.std(ends, ddof=1):.4f} over 4 seeds: name another" in alone.verdict


def test_speed_up_that_cannot_be_told_is_not_given(seeds: Path) -> None:
    """A stage that begins below the loss with which the baseline ends it reached that before its first validation."""
    plant(seeds, "far", experiment="far", margin=-5)
    found = compare("base-s0", "far", stage="second")
    assert (found.standings[1].speedup_tokens, found.standings[1].speedup_time) == (None, None)
    assert found.standings[0].speedup_tokens == 1
    assert "far had reached the loss with which base-s0 ends by its first validation" in found.notes[-1]


def test_edited_model_and_repeated_seed_are_no_further_seeds(seeds: Path) -> None:
    plant(seeds, "base-again", seed=0)
    plant(seeds, "base-lr", seed=7, config={"stages": [{"name": "first", "train": {"lr": 2e-3}}]})
    found = compare("base-s0", "base-s1", "base-again", "base-lr")
    assert [standing.runs for standing in found.standings] == [("base-s0", "base-s1"), ("base-again",), ("base-lr",)]
    assert found.standings[2].settings == {"train.lr": 2e-3}


def test_groups_are_named_by_label_and_pattern(seeds: Path) -> None:
    for seed in range(4):
        change_labels(seeds / f"wide-s{seed}", group="tuesday")
    assert resolve_runs(["tuesday"]) == resolve_runs(["wide-*"])
    assert compare("tuesday", "base-*", baseline="base-s2").baseline == "base"
    with pytest.raises(WrongUsageError, match="none of the runs"):
        compare("base-s0", "wide-s0", baseline="elsewhere")


def test_command_prints_table_json_csv_markdown_and_refuses(seeds: Path, lmplay: LMPlay) -> None:
    answer = lmplay("compare", "base-*", "wide-*", "--json")
    found = json.loads(answer.stdout)
    assert answer.returncode == 0
    assert set(found) >= {"baseline", "x", "comparable", "reasons", "runs", "verdict"}
    expected = {"run", "group", "seeds", "validation_loss", "difference", "interval", "speedup_tokens", "speedup_time"}
    assert set(found["runs"][1]) >= expected | {"parameters"}
    table = lmplay("compare", "base-*", "wide-*").stdout
    assert "wide is better than base" in table
    rows = list(
        csv.DictReader(lmplay("compare", "base-*", "wide-*", "--csv", "--baseline", "base").stdout.splitlines())
    )
    assert float(rows[1]["validation_loss"]) == found["runs"][1]["validation_loss"]
    markdown = lmplay("compare", "base-s0", "wide-s0", "--markdown").stdout
    assert "| validation loss |" in markdown
    plant(seeds, "foreign", validation_key="other")
    refused = lmplay("compare", "base-s0", "foreign")
    assert refused.returncode == 1
    assert "validation key" in refused.stdout


def test_pictures_and_their_numbers_are_written(seeds: Path, lmplay: LMPlay, tmp_path: Path) -> None:
    answer = lmplay("plot", "base-*", "wide-s0", "-o", "a.png", "--log-x", MPLCONFIGDIR=str(tmp_path / "mpl"))
    assert answer.returncode == 0, answer.stderr
    series = {path.name: load_series(path, axis="tokens") for path in resolve_runs(["base-*", "wide-s0"])}
    groups = group_series(group_by_seed([one.curve for one in series.values()]), series, axis="tokens")
    for name in ("b.svg", "c.pdf"):
        save_picture(groups, tmp_path / name, log_y=True)
    for name, begins in (("a.png", b"\x89PNG"), ("b.svg", b"<?xml"), ("c.pdf", b"%PDF")):
        assert (tmp_path / name).read_bytes().startswith(begins)
    assert "base (4 seeds)" in (tmp_path / "b.svg").read_text()
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert {row["kind"] for row in rows} == {"train", "validate", "mean", "difference"}
    last = [row for row in rows if row["kind"] == "difference"][-1]
    bases = np.mean([validation_lines(seeds / f"base-s{seed}")[2][-1] for seed in range(4)])
    assert float(last["loss"]) == pytest.approx(validation_lines(seeds / "wide-s0")[2][-1] - bases)


@pytest.mark.usefixtures("seeds")
def test_terminal_chart_needs_no_file(lmplay: LMPlay) -> None:
    answer = lmplay("plot", "base-s0", "wide-s0", "--width", "70", "--height", "12")
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("loss")
    assert all(len(line) <= 70 for line in lines)
    assert any("⠁" <= character <= "⣿" for character in answer.stdout)
    assert lines[-1].startswith("── wide-s0")
    unknown = lmplay("plot", "base-s0", "--y", "gradnorm")
    assert unknown.returncode == 2
    assert os.linesep not in unknown.stderr.strip()
