"""`lmplay generate` as a person types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from lmplay.base.base_model import LMBase
from lmplay.cli.generate import visible
from lmplay.generate import generate_text

LMPlay = Callable[..., subprocess.CompletedProcess[str]]


def test_json_answers_have_the_agreed_shape_one_a_line(lmplay: LMPlay, checkpoint: Path, model: LMBase) -> None:
    asked = ("--prompt", "One", "--prompt", "Two and more", "--samples", "2", "--max-tokens", "6", "--seed", "4")
    done = lmplay("generate", str(checkpoint), *asked, "--json", "--probs", "1")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["prompt"] for answer in answers] == ["One", "One", "Two and more", "Two and more"]
    for answer in answers:
        assert {"prompt", "text", "tokens", "stopped_by", "tokens_per_second", "time_to_first_token"} <= set(answer)
        assert answer["stopped_by"] in ("max_tokens", "end_of_text")
        assert len(answer["probabilities"]) == len(answer["tokens"])
        assert answer["tokens_per_second"] > 0
    expected = [generate_text(model, "One", max_tokens=6, seed=seed) for seed in (4, 5)]
    assert [answer["text"] for answer in answers[:2]] == expected


def test_a_single_text_streams_after_its_prompt(lmplay: LMPlay, checkpoint: Path) -> None:
    done = lmplay("generate", str(checkpoint), "--prompt", "The following", "--max-tokens", "70", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The following")
    assert done.stderr.count("the oldest were dropped") == 1  # 72 tokens do not fit into 64


def test_wrong_usage_is_one_line(lmplay: LMPlay, checkpoint: Path) -> None:
    for arguments, message in (
        (("no-such-run", "--prompt", "x"), "no-such-run"),
        ((str(checkpoint), "--prompt", "x", "--top-p", "2"), "top_p"),
        ((str(checkpoint), "--prompt", "x", "--device", "cuda:9"), "--device cpu"),
    ):
        done = lmplay("generate", *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_what_a_model_writes_cannot_steer_the_terminal() -> None:
    assert visible("red \x1b[31m\r\x07\x9b8m\ttab\nline 日本") == "red ␛[31m␍␇\ufffd8m\ttab\nline 日本"


def test_the_cost_of_each_kind_of_weights_is_stated(lmplay: LMPlay, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("some words to measure on " * 40)
    done = lmplay("generate", str(checkpoint), "--compare-weights", "--text", "words.txt", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == ["weights", "MB", "read/token", "tokens/s", "perplexity", "change"]
    assert [line.split()[0] for line in lines] == ["float32", "bfloat16", "int8"]
    assert lines[0].endswith("+0.00%")
