"""What a person types is taken as meant or refused in one line that names the nearest key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lmplay.base.model_files import save_model
from lmplay.base.runner_list import get_runner
from lmplay.train.config import TrainConfig
from lmplay.train.request import (
    RunRequest,
    dump_config,
    parse_assignments,
    parse_value,
    read_config_file,
)
from lmplay.train.worker import build_model
from lmplay.utils.errors import LMPlayError, WrongUsageError


def test_assignments_are_sorted_into_their_tables_and_typed() -> None:
    tables = parse_assignments(["model.num_blocks=2", "train.lr=1e-3", 'train.freeze=["fc"]', "data.packing=pad"])
    assert tables == {
        "model": {"num_blocks": 2},
        "train": {"lr": 1e-3, "freeze": ["fc"]},
        "data": {"packing": "pad"},
    }


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("1e-3", 1e-3), ("true", True), ("None", None), ("cosine", "cosine")]
)
def test_values_are_json_where_they_are_json(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("lr=1e-3", "did you mean train.lr"),
        ("num_blocks=2", "a setting of the model is written model.num_blocks"),
        ("train.learing_rate=1", "unknown key train.learing_rate"),
        ("train.batchsize=1", "did you mean batch_size"),
        ("trian.lr=1", "did you mean train.lr"),
        ("train.lr", "key=value"),
        ("train.lr=fast", "train.lr='fast'"),
        ("train.batch_size=0", "greater than or equal to 1"),
        ("train.lr=NaN", "finite"),
        ("train.optimizer=adm", "train.optimizer='adm'"),
    ],
)
def test_a_wrong_assignment_is_refused_in_one_line(assignment: str, message: str) -> None:
    with pytest.raises(WrongUsageError) as error:
        parse_assignments([assignment])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_nearer_settings_win() -> None:
    request = RunRequest(experiment="x", train={"lr": 3.0})
    config = request.stage_config(preset={"lr": 1.0, "batch_size": 8}, stage="s", stage_train={"lr": 2.0, "eps": 1e-6})
    assert (config.lr, config.batch_size, config.eps) == (3.0, 8, 1e-6)
    assert config.weight_decay == TrainConfig().weight_decay


def test_a_plan_with_an_unknown_setting_names_its_stage() -> None:
    with pytest.raises(WrongUsageError, match=r"stage 'warm' of the plan: train\.lrr; did you mean lr"):
        RunRequest(experiment="x").stage_config(preset={}, stage="warm", stage_train={"lrr": 1})


def test_dumped_config_is_read_back_the_same(tmp_path: Path) -> None:
    request = RunRequest(experiment="test_runner", plan="quickstart", seed=7, train={"lr": 0.5, "freeze": ["a.*"]})
    text = dump_config(
        request, TrainConfig(lr=0.5, freeze=("a.*",)), model={"num_blocks": 2, "version": 'with "quotes"'}
    )
    file = tmp_path / "run.toml"
    file.write_text(text)
    content = read_config_file(file)
    assert content["experiment"] == "test_runner"
    assert content["seed"] == 7
    assert content["model"] == {"num_blocks": 2, "version": 'with "quotes"'}
    assert TrainConfig.model_validate(content["train"]) == TrainConfig(lr=0.5, freeze=("a.*",))
    assert tomllib.loads(text) == content


def test_config_files_are_checked_like_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    for text, message in [
        ("[train]\nlrr = 1", "unknown key .*train.lrr"),
        ("[trian]\nlr = 1", "unknown key trian; did you mean train"),
        ("train = 3", r"write \[train\]"),
        ("lr = = 1", "not TOML"),
    ]:
        file.write_text(text)
        with pytest.raises(WrongUsageError, match=message):
            read_config_file(file)
    with pytest.raises(LMPlayError, match="cannot be read"):
        read_config_file(tmp_path / "missing.toml")


def test_weights_of_other_sizes_are_refused_with_the_settings_they_want(tmp_path: Path) -> None:
    runner = get_runner("test_runner")
    save_model(runner.build_model(num_blocks=1, embed_dim=32), tmp_path / "small", experiment="test_runner")
    request = RunRequest(experiment="test_runner", plan="quickstart", initial_model=str(tmp_path / "small"))
    with pytest.raises(WrongUsageError, match=r"theirs are --set model.num_blocks=1 --set model.embed_dim=32"):
        build_model(runner, request)
