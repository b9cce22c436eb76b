"""Plan files: both forms, the ready plans, and one line with the place for everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmplay.plans import list_plans, load_plan, parse_plan
from lmplay.train.config import TrainConfig
from lmplay.train.request import check_stage_settings
from lmplay.utils.errors import WrongUsageError

FULL: dict[str, Any] = {
    "version": 1,
    "datasets": {
        "docs": {"source": "builtin", "args": {"name": "pydocs"}},
        "wiki": {"source": "hub", "args": {"path": "wikimedia/wikipedia", "name": "20231101.en"}},
        "qa": {
            "source": "json",
            "args": {"data_files": "qa.jsonl"},
            "fields": {"prompt": "question", "truth": "answer"},
        },
    },
    "stages": [
        {"name": "mix", "datasets": {"docs": 0.7, "qa": 0.3}, "epochs": 1, "train": {"lr": 1e-3}},
        {"name": "more", "datasets": {"wiki": 1}, "tokens": 1000},
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """FULL with the value at a dotted path replaced, or removed for `...`."""
    plan: Any = json.loads(json.dumps(FULL))
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = plan
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return dict(plan)


def parse(plan: Any) -> Any:
    return parse_plan(plan, name="test", folder=Path("/plans"))


def test_full_form_keeps_order_and_overrides() -> None:
    plan = parse(FULL)
    assert [stage.name for stage in plan.stages] == ["mix", "more"]
    assert plan.stages[0].train == {"lr": 1e-3}
    assert plan.stages[0].datasets == {"docs": 0.7, "qa": 0.3}
    assert plan.stages[1].tokens == 1000
    assert plan.datasets["qa"].fields.truth == "answer"


def test_short_form_of_the_reference_document() -> None:
    plan = parse(
        {
            "stage1_pretrain": {"dataset": "wikipedia", "epochs": 1},
            "stage2_finetune": {"dataset": "wikitext", "epochs": 1},
        }
    )
    assert [(stage.name, list(stage.datasets), stage.epochs) for stage in plan.stages] == [
        ("stage1_pretrain", ["wikipedia"], 1),
        ("stage2_finetune", ["wikitext"], 1),
    ]
    assert plan.datasets["wikipedia"].args == {"path": "wikimedia/wikipedia", "name": "20231101.en"}
    assert plan.datasets["wikitext"].args == {"path": "Salesforce/wikitext", "name": "wikitext-103-raw-v1"}


def test_builtin_text_in_the_short_form() -> None:
    plan = parse({"only": {"dataset": "pydocs", "epochs": 0.5}})
    assert plan.datasets["pydocs"].source == "builtin"
    assert plan.stages[0].epochs == 0.5


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, "test: version: "),
        ("sede", 1, "test: sede: unknown key; did you mean seed?"),
        ("stages", [], "test: stages: it is empty"),
        ("stages.1.datasets", {}, "test: stages[1].datasets: it is empty"),
        (
            "stages.1.datasets.wikki",
            1,
            "test: stages[1].datasets.wikki: there is no dataset of this name; did you mean",
        ),
        ("stages.1.datasets.wiki", 0, "test: stages[1].datasets.wiki: the weight 0 is not a share"),
        ("stages.1.datasets.wiki", "1", 'test: stages[1].datasets.wiki: a number is needed, and this is "1"'),
        ("stages.1.datasets.wiki", float("inf"), "test: stages[1].datasets.wiki: a finite number is needed"),
        ("stages.0.epochs", float("inf"), "test: stages[0].epochs: a finite number is needed"),
        ("stages.1", None, "test: stages[1]: an object is needed, and this is null"),
        ("datasets", ..., "test: datasets: this key is missing"),
        ("stages.1.packing", "documents", 'test: stages[1].packing: "documents" is not known; did you mean document?'),
        ("stages.1.epochs", 1, "test: stages[1]: give one budget"),
        ("stages.1.tokens", ..., "test: stages[1]: give one budget"),
        ("stages.1.name", "mix", "test: stages[1].name: another stage is called 'mix'"),
        ("stages.0.epoch", 1, "test: stages[0].epoch: unknown key; did you mean epochs?"),
        ("datasets.docs.args.name", "pydoc", "test: datasets.docs.args.name: the built-in texts are"),
        ("datasets.docs.source", "web", "test: datasets.docs.source: "),
        ("datasets.qa.args.data_file", "x", "test: datasets.qa.args.data_file: a json source takes no such argument"),
        ("datasets.qa.fields.truth", ..., "test: datasets.qa.fields: give `text`"),
        ("datasets.qa.fields.thruth", "x", "test: datasets.qa.fields.thruth: unknown key; did you mean truth?"),
        ("datasets.qa.validation", {"share": 2.0}, "test: datasets.qa.validation.share: "),
        ("datasets.docs.document_start", "(", "test: datasets.docs.document_start: no regular expression"),
        ("datasets.qa.document_start", "^a", "test: datasets.qa.document_start: only rows of text are joined"),
        ("datasets.qa.template", "{truth} {prompt}", "test: datasets.qa.template: it holds {prompt} once and ends"),
        ("datasets.wiki.args.token", "hf_x", "test: datasets.wiki.args.token: a plan does not hold this; log in with"),
        ("datasets.qa", {"like": ["docs"]}, "test: datasets.qa.like: the name of a dataset is needed, and this is ["),
        ("datasets.qa", {"like": "docz"}, "test: datasets.qa.like: there is no dataset 'docz'; did you mean docs"),
    ],
)
def test_each_mistake_is_named_with_its_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(WrongUsageError) as caught:
        parse(changed(path, value))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lrr": 1}, "test: stages[1].train.lrr: unknown key; did you mean lr?"),
        ({"lr": -1}, "test: stages[1].train.lr: it must be greater than 0, and this is -1"),
        ({"schedule": "cosin"}, 'test: stages[1].train.schedule: "cosin" is not known; did you mean cosine?'),
    ],
)
def test_what_a_stage_changes_of_the_training_is_checked_in_its_place(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongUsageError) as caught:
        check_stage_settings(parse(changed("stages.1.train", settings)))
    assert str(caught.value) == message


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    plan = parse(json.loads(json.dumps(changed("stages.1.tokens", "N")).replace('"N"', "1e9")))
    assert plan.stages[1].tokens == 10**9


def test_a_dataset_can_be_like_another_with_changes() -> None:
    plan = parse(changed("datasets.small", {"like": "wiki", "max_tokens": 1000}))
    assert plan.datasets["small"].args == plan.datasets["wiki"].args
    assert plan.datasets["small"].max_tokens == 1000


def test_a_cycle_of_names_is_refused() -> None:
    plan = changed("datasets.wiki", {"like": "docs"})
    plan["datasets"]["docs"] = {"like": "wiki"}
    with pytest.raises(WrongUsageError, match=r"like: a cycle of names: (docs -> wiki -> docs|wiki -> docs -> wiki)"):
        parse(plan)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, "test: the plan has no stages"),
        ([], "test: a plan is a JSON object"),
        ({"a": {"dataset": "wikipdia", "epochs": 1}}, "test: a.dataset: there is no known dataset 'wikipdia'; did you"),
        ({"a": {"dataset": "wikipedia"}}, "test: a: the stage has no `epochs`"),
        ({"a": {"dataset": "wikipedia", "epochs": 0}}, "test: a.epochs: a number above zero is needed, and this is 0"),
        ({"a": {"dataset": "wikipedia", "epochs": float("inf")}}, "test: a.epochs: a number above zero is needed"),
        ({"a": {"dataset": ["wikipedia"], "epochs": 1}}, "test: a.dataset: a name is needed"),
        ({"a": {"dataset": "wikipedia", "epoch": 1}}, "test: a.epoch: unknown key; did you mean epochs?"),
    ],
)
def test_mistakes_in_the_short_form(plan: Any, message: str) -> None:
    with pytest.raises(WrongUsageError) as caught:
        parse(plan)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": {"dataset": "pydocs", "epochs": 1}', "not JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"a": {"dataset": "pydocs", "epochs": NaN}}', "NaN is not a number"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": {"dataset": "pydocs", "epochs": ' + b"1" * 5000 + b"}}", "integer string"),
    ],
)
def test_unreadable_files_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(WrongUsageError) as caught:
        load_plan(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_unknown_names_and_paths_suggest_the_nearest() -> None:
    with pytest.raises(WrongUsageError, match="did you mean quickstart"):
        load_plan("quickstat")
    with pytest.raises(WrongUsageError, match="there is no plan file"):
        load_plan("somewhere/quickstart.json")


@pytest.mark.parametrize("name", list_plans())
def test_every_ready_plan_reads_and_says_what_it_is_for(name: str) -> None:
    plan = load_plan(name)
    assert plan.name == name
    assert plan.description.endswith(".")
    for stage in plan.stages:
        TrainConfig.model_validate(stage.train)


@pytest.mark.parametrize("name", list_plans())
def test_a_plan_survives_the_way_through_a_run_file(name: str) -> None:
    plan = load_plan(name)
    again = parse_plan(
        json.loads(json.dumps(plan.model_dump(mode="json"))), name=name, folder=plan.folder, label=plan.label
    )
    assert again == plan


def test_plans_need_neither_torch_nor_numpy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, lmplay.plans; print([m for m in ('torch', 'numpy', 'datasets', 'tiktoken') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
