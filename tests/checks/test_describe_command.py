"""`lmplay describe` and `lmplay list` as they are printed."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from lmplay.cli import describe as describe_module
from lmplay.cli import list as list_module
from lmplay.utils.errors import WrongUsageError

app = typer.Typer()
describe_module.register(app)
list_module.register(app)


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_describe_tells_layers_and_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = call("describe", "gpt2ish", "--device", "cuda")
    assert "Reference model. Loosely based on GPT-2." in text
    assert "num_blocks=6" in text
    assert "0 (Block) x 6" in text
    assert text.count("attn (MultiheadAttention)") == 1
    assert "120,509,952 (81,126,144 without embeddings)" in text
    assert "181.00M forward, 543.01M in training" in text


def test_describe_as_json_has_the_promised_keys_and_takes_settings() -> None:
    answer = json.loads(call("describe", "test_runner", "--set", "model.num_blocks=1", "--json"))
    promised = {"name", "parameters", "trainable_parameters", "non_embedding_parameters"}
    assert promised | {"flops_per_token", "memory", "layers"} <= answer.keys()
    assert answer["settings"]["num_blocks"] == 1
    assert answer["parameters"] == 2 * 50257 * 64 + 1024 * 64 + 12 * 64**2 + 13 * 64 + 128
    assert answer["memory"]["weights"] == 4 * answer["parameters"]
    assert [layer["name"] for layer in answer["layers"] if layer["depth"] == 1][-1] == "fc"


@pytest.mark.parametrize(
    "setting", ["model.nun_blocks=1", "num_blocks=1", "model.num_blocks", "train.lr=1", "model.num_blocks=two"]
)
def test_a_setting_that_cannot_be_meant_is_refused(setting: str) -> None:
    with pytest.raises(WrongUsageError):
        call("describe", "test_runner", "--set", setting)


def test_list_prints_each_name_with_its_description() -> None:
    lines = call("list").splitlines()
    assert any(line.split(maxsplit=1) == ["gpt2ish", "Reference model. Loosely based on GPT-2."] for line in lines)
    rows = json.loads(call("list", "--json"))
    assert {"name", "description", "long_name", "module", "broken"} == set(rows[0])
    assert {"gpt2ish", "gpt2ish_med", "gpt2ish_large", "gpt2ish_small", "s_gpt2ish", "test_runner"} <= {
        row["name"] for row in rows if row["broken"] is None
    }
