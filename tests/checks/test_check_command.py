"""`lmplay check` as it is printed, and as it is read by programs."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

import lmplay.data
from lmplay.base import runner_list
from lmplay.base.base_model import BasicModelRunner
from lmplay.base.runner_list import RunnerEntry
from lmplay.cli import check
from lmplay.data import Batch
from lmplay.plans import Plan
from lmplay.utils.errors import LMPlayError, WrongUsageError
from tests.checks.broken import answering, learning, looking_ahead

app = typer.Typer()
check.register(app)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three broken models under names of their own."""
    monkeypatch.setenv("COLUMNS", "200")
    assert "gpt2ish" in runner_list.MODEL_RUNNERS
    for model_class in (looking_ahead.FutureLeak, learning.UnusedHead, answering.Talkative):
        entry = RunnerEntry(
            name=model_class.__name__,
            description="",
            long_name="",
            module=__name__,
            file=__file__,
            line=1,
            factory=lambda model_class=model_class: BasicModelRunner(model_class),
        )
        monkeypatch.setitem(runner_list._registry._entries, entry.name, entry)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_sound_model_is_told_so_with_the_norms_of_its_blocks() -> None:
    result = call("test_runner", "--tiny", "--set", "model.max_len=16", "--only", "gradients", "--only", "eval_mode")
    assert result.exit_code == 0, result.output
    assert "max_len=16" in result.stdout
    assert "two passes agree bit by bit and write nothing; 5 dropout layers are off" in result.stdout
    bars = {line.split()[0]: line for line in result.stdout.splitlines() if "█" in line}
    assert list(bars) == ["pos_embed", "tok_embed", "blocks.0", "blocks.1", "ln", "fc"]
    assert re.search(r"2 passed in \d+ s", result.stdout)


def test_what_a_model_prints_does_not_stand_in_the_json() -> None:
    result = call("Talkative", "--tiny", "--only", "eval_mode", "--json")
    assert json.loads(result.stdout)["ok"] is True
    assert "x is torch.Size" in result.stderr


def test_a_failed_check_says_what_it_saw_and_what_is_likely_wrong() -> None:
    result = call("FutureLeak", "--tiny", "--only", "causality", "--only", "cost")
    assert result.exit_code == 1
    assert "FAIL  causality" in result.stdout
    assert "likely: every position sees the whole text" in result.stdout
    assert "1 passed, 1 failed: causality" in result.stdout


def test_a_line_for_each_parameter_on_request() -> None:
    result = call("UnusedHead", "--tiny", "--only", "gradients", "--gradients")
    assert any(line.split()[:3] == ["extra.weight", "4x4", "none"] for line in result.stdout.splitlines())


def test_json_has_the_promised_shape() -> None:
    result = call("FutureLeak", "--tiny", "--only", "causality", "--only", "gradients", "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert set(answer) == {"experiment", "ok", "checks", "gradients"}
    assert [(check["name"], check["ok"]) for check in answer["checks"]] == [("causality", False), ("gradients", True)]
    assert {"name", "shape", "status", "grad_norm"} <= set(answer["gradients"][0])


def test_a_stream_gives_each_result_a_line_and_the_whole_at_the_end() -> None:
    lines = call(
        "test_runner", "--tiny", "--only", "eval_mode", "--only", "cost", "--json", "--stream"
    ).stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer.get("name") for answer in answers] == ["eval_mode", "cost", None]
    assert answers[-1]["checks"] == answers[:2]


def test_the_text_can_come_from_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Rows:
        """A validation part in which every row says the same token again and again."""

        num_rows = 3

        def rows(self, first: int, count: int) -> Batch:
            tokens = np.full((count, opened[0][1]), 7)
            return Batch(tokens=tokens, targets=tokens)

    def open_validation(plan: Plan, *, sequence_length: int) -> Rows:
        opened.append((plan.name, sequence_length))
        return Rows()

    monkeypatch.setattr(lmplay.data, "open_validation", open_validation)
    asked = ("test_runner", "--tiny", "--only", "initial_loss", "--json")
    result = call(*asked, "--plan", "quickstart")
    assert result.exit_code == 0, (result.output, result.exception)
    evidence = [json.loads(output)["checks"][0]["evidence"] for output in (result.stdout, call(*asked).stdout)]
    assert evidence[0] != evidence[1]
    assert opened == [("quickstart", 65)]
    monkeypatch.setattr(Rows, "num_rows", 2)
    assert "has 2 rows" in str(call("test_runner", "--tiny", "--plan", "quickstart").exception)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("test_runnr",), WrongUsageError),
        (("test_runner", "--only", "casuality"), WrongUsageError),
        (("test_runner", "--set", "model.num_block=1"), WrongUsageError),
        (("test_runner", "--device", "cuda:99"), WrongUsageError),
        (("test_runner", "--stream"), WrongUsageError),
        (("test_runner", "--plan", "nowhere"), LMPlayError),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], error: type[Exception]) -> None:
    result = call(*arguments)
    assert isinstance(result.exception, error), result.exception
    assert result.stdout == "", "nothing of a table whose checks never run"
