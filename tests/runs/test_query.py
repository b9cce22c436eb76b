"""The filter language of `lmplay runs`, and its sorting."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmplay.runs.labels import Labels
from lmplay.runs.query import parse_query, select, sort_runs
from lmplay.runs.settings import Settings, flat_config
from lmplay.runs.status import Status
from lmplay.runs.summary import RunSummary
from lmplay.utils.errors import WrongUsageError


def summary(
    name: str, *, experiment: str = "gpt2ish", state: str = "done", tags: tuple[str, ...] = (), **more: object
) -> RunSummary:
    loss, tokens = more.get("loss"), more.get("tokens", 0)
    return RunSummary(
        path=Path("/runs") / name,
        experiment=experiment,
        plan="quickstart",
        seed=0,
        status=Status(state=state, loss=loss, tokens=tokens, age=7200.0),  # type: ignore[arg-type]
        labels=Labels(tags=tags, note="second try"),
        config=Settings({"train.lr": more.get("lr", 1e-3), "train.amp": False, "model.num_blocks": 6}),
    )


RUNS = [
    summary("a", loss=3.5, tags=("old",), lr=6e-4, tokens=2_000_000),
    summary("b", loss=4.5, state="running", tokens=500),
    summary("c", experiment="gpt2ish_med", loss=float("nan"), state="lost"),
    summary("d", experiment="other"),
]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", "abcd"),
        ("exp:gpt2ish", "ab"),
        ("exp:gpt2ish*", "abc"),
        ("exp:gpt2ish loss<4 -tag:old lr>=1e-3", ""),
        ("exp:gpt2ish -tag:old lr>=1e-3 state:running", "b"),
        ("-tag:old", "bcd"),
        ("state:running,lost", "bc"),
        ("state!=done", "bc"),
        ("loss<4", "a"),
        ("loss>=4", "b"),
        ("tokens>1.5M", "a"),
        ("tokens<1k", "bcd"),
        ("age>1h", "abcd"),
        ("age<90min", ""),
        ("train.lr=0.0006", "a"),
        ("loss:nan", "c"),
        ("amp:false", "abcd"),
        ("med", "c"),
        ("note:'second try'", "abcd"),
        ("loss:none", "d"),
    ],
)
def test_query_selects(query: str, names: str) -> None:
    assert "".join(run.name for run in select(RUNS, query)) == names


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("loss<", "has nothing after"),
        ("loss<many", "no number"),
        ("exq:gpt2ish", "did you mean exp"),
        ("note:'half", "can't be read"),
    ],
)
def test_query_that_cannot_be_meant_is_refused(query: str, says: str) -> None:
    with pytest.raises(WrongUsageError, match=says):
        select(RUNS, query)


def test_query_of_an_empty_list_needs_no_known_keys() -> None:
    assert select([], "loss<4 anything:1") == []
    assert parse_query("loss<4")(RUNS[0])


def test_sorting_puts_what_is_unknown_last_both_ways() -> None:
    assert "".join(run.name for run in sort_runs(RUNS, "loss")) == "abcd"
    assert "".join(run.name for run in sort_runs(RUNS, "-loss")) == "bacd"
    assert "".join(run.name for run in sort_runs(RUNS, "-lr"))[-1] == "a"


def test_settings_that_differ_between_stages_are_named_by_stage() -> None:
    stages = [
        {"name": "one", "train": {"lr": 1e-3, "batch_size": 8}},
        {"name": "two", "train": {"lr": 1e-4, "batch_size": 8}},
    ]
    flat = flat_config({"config": {"model": {"num_blocks": 2}, "stages": stages}})
    assert flat == {"model.num_blocks": 2, "train.batch_size": 8, "one.train.lr": 1e-3, "two.train.lr": 1e-4}
