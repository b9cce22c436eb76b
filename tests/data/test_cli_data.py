"""`lmplay plans` and `lmplay data` as a person types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lmplay.data import IGNORED, open_stage
from lmplay.plans import load_plan
from lmplay.utils import get_tokenizer

LMPlay = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class Said:
    """What a command printed, and how it ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """The command without a process of its own, which most of these need not wait for."""
    from lmplay.cli.errors import run_app
    from lmplay.cli.main import app

    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> Said:
        status = run_app(app, "lmplay", arguments)
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    return run


@pytest.fixture
def qa_plan(tmp_path: Path) -> Path:
    rows = [{"question": f"What is {n} + 1?", "answer": f"{n + 1}"} for n in range(200)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"prompt": "question", "truth": "answer"}
    plan = {
        "version": 1,
        "description": "Sums.",
        "datasets": {"qa": {"source": "json", "args": {"data_files": "qa.jsonl"}, "fields": fields}},
        "stages": [{"name": "sums", "datasets": {"qa": 1}, "epochs": 2, "train": {"sequence_length": 64}}],
    }
    path = tmp_path / "sums.json"
    path.write_text(json.dumps(plan))
    return path


def answer(done: Said) -> object:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_plans_are_listed_and_shown(
    call: Callable[..., Said], qa_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMPLAY_CACHE", str(tmp_path / "cache"))  # not prepared by another test: figures are estimates
    listed = answer(call("plans", "--json"))
    assert isinstance(listed, list)
    assert {"quickstart", "default", "wikitext", "code"} <= {plan["name"] for plan in listed}
    shown = answer(call("plans", "show", str(qa_plan), "--tokens-per-second", "100", "--json"))
    assert isinstance(shown, dict)
    (stage,) = shown["stages"]
    assert (stage["sequence_length"], stage["batch_size"], stage["exact"]) == (64, 50, False)
    assert stage["seconds"] == pytest.approx(stage["rows"] * 64 / 100)
    assert shown["total"]["disk"] == stage["disk"] > 3 * stage["tokens"] / 2  # two epochs; a mask is a byte a token
    guessed = answer(call("plans", "show", str(qa_plan), "--experiment", "test_runner", "--json"))
    assert isinstance(guessed, dict)
    assert guessed["total"]["seconds"] > 0
    assert guessed["speed_from"].startswith("a guess")


def test_a_dataset_is_prepared_shown_verified_mended_and_pruned(
    call: Callable[..., Said], qa_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("LMPLAY_CACHE", str(cache))
    rows = answer(call("data", "prepare", str(qa_plan), "--json"))
    assert isinstance(rows, list)
    assert rows[0]["documents"] + rows[0]["held_out_documents"] == 200
    assert rows[0]["learned"] < rows[0]["tokens"]
    shown = answer(call("plans", "show", str(qa_plan), "--json"))
    assert isinstance(shown, dict)
    assert shown["stages"][0]["exact"]
    facts = answer(
        call(
            "data",
            "show",
            "qa",
            "--plan",
            str(qa_plan),
            "--sequence-length",
            "64",
            "--row",
            "0",
            "--packing",
            "document",
            "--json",
        )
    )
    assert isinstance(facts, dict)
    assert sum(count for _, _, count in facts["lengths"]["histogram"]) == rows[0]["documents"]
    spans = facts["row"]["spans"]
    assert spans[0]["text"].startswith("What is")
    assert not spans[0]["learned"]
    assert spans[1]["learned"]
    assert sum(span["tokens"] for span in spans) == 64
    assert "What is" in call("data", "show", "qa", "--plan", str(qa_plan), "--row", "0").stdout
    assert "documents" in call("data", "show", "qa", "--plan", str(qa_plan)).stdout
    short = call("data", "show", "qa", "--plan", str(qa_plan), "--sequence-length", "7").stdout
    assert re.search(r"qa: of \d+ documents \d+ are (cut|dropped)", short)

    store = Path(rows[0]["paths"][0])
    with (store / "00000.mask.npy").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x07")
    damaged = call("data", "verify")
    assert damaged.returncode == 1
    assert "damaged: 0" in damaged.stdout
    assert len(damaged.stderr.splitlines()) == 1
    assert "made again: 0" in call("data", "verify", str(qa_plan)).stdout
    assert "all sound" in call("data", "verify").stdout

    (listed,) = answer(call("data", "--json"))  # type: ignore[misc]
    assert listed["path"] == str(store)
    assert "nothing to remove" in call("data", "prune").stdout
    assert "would remove" in call("data", "prune", "--all", "--dry-run").stdout
    assert store.exists()
    assert answer(call("data", "prune", "--all", "--json"))
    assert not store.exists()
    assert "Nothing is prepared" in call("data").stdout
    assert not list((cache / "tokens").iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("plans", "show", "quickstat"), 2, "did you mean quickstart"),
        (("data", "prepare", "default"), 1, "--plan quickstart"),
        (("data", "show", "pydoks"), 2, "did you mean pydocs"),
        (("data", "show", "pydocs", "--row", "99999999"), 2, "there is no row 99999999"),
        (("data", "show", "pydocs", "--packing", "box"), 2, "there is no packing 'box'"),
        (("plans", "show", "quickstart", "--experiment", "gpt2is"), 2, "gpt2ish"),
    ],
)
def test_mistakes_are_one_line(
    call: Callable[..., Said], arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = call(*arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_stages_of_pairs_train_as_they_say_and_keep_count(lmplay: LMPlay, tmp_path: Path, runs_folder: Path) -> None:
    answers = ["yes " * (60 if n % 10 == 0 else 3) for n in range(100)]  # every tenth does not fit into a row
    rows = [{"question": f"Is {n} a number?", "answer": answer} for n, answer in enumerate(answers)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"prompt": "question", "truth": "answer"}
    common = {"sequence_length": 32, "warmup_steps": 0, "sample_tokens": 0}
    frozen = {"batch_size": 4, "lr": 1e-4, "freeze": ["tok_embed"], "validation_interval": 1000}
    plan = {
        "version": 1,
        "datasets": {"qa": {"source": "json", "args": {"data_files": "qa.jsonl"}, "fields": fields}},
        "stages": [
            {"name": "packed", "datasets": {"qa": 1}, "epochs": 0.25, "packing": "document", "train": common},
            {"name": "alone", "datasets": {"qa": 1}, "samples": 12, "packing": "pad", "train": {**common, **frozen}},
        ],
    }
    (tmp_path / "pairs.json").write_text(json.dumps(plan))
    done = lmplay("run", "test_runner", "--plan", "pairs.json", "--name", "r", "--set", "model.max_len=32")
    assert done.returncode == 0, done.stderr
    (notice,) = {line.split(": ", 1)[1] for line in done.stdout.splitlines() if line.startswith("warning")}
    run = runs_folder / "r"
    status = json.loads((run / "status.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    packed, alone = (
        [row for row in metrics if row["stage"] == n and row["kind"] == "train"] for n in ("packed", "alone")
    )
    # A row in each stage is counted, in the stage and in the whole.
    first, second = status["by_stage"]
    assert [first["steps"], second["steps"]] == [len(packed), len(alone)] == [1, 3]
    for counter in ("steps", "samples", "tokens"):
        assert first[counter] + second[counter] == status[counter.replace("steps", "step")]
    # The settings of a stage hold in it alone.
    assert packed[-1]["lr"] == 6e-4
    assert [row["lr"] for row in alone] == [1e-4] * 3
    assert [row["samples"] - packed[-1]["samples"] for row in alone] == [4, 8, 12]
    weights = [load_file(run / "checkpoints" / step / "model.safetensors") for step in ("1", "4")]
    assert torch.equal(weights[0]["tok_embed.weight"], weights[1]["tok_embed.weight"])
    assert not torch.equal(weights[0]["fc.weight"], weights[1]["fc.weight"])
    # The questions carry no loss.
    batch = open_stage(load_plan(tmp_path / "pairs.json"), 1, sequence_length=32, packing="pad").rows(0, 12)
    assert batch.num_targets == second["tokens"]
    text = get_tokenizer().decode(batch.targets[batch.targets != IGNORED].tolist())
    assert not re.sub(r"yes|<\|endoftext\|>|\s", "", text)
    # What does not fit is counted and said.
    cut = open_stage(load_plan(tmp_path / "pairs.json"), 0, sequence_length=32, packing="document").summaries()[0]
    assert cut.cut_documents in (9, 10)  # one may be held out
    assert (
        f"qa: of {cut.documents} documents {cut.cut_documents} are cut at the end of their row ({cut.cut_targets} "
        in notice
    )
    shown = lmplay("runs", "show", "r").stdout
    assert f"all     4 steps, {status['samples']} samples, {status['tokens']} tokens" in shown


def test_a_folder_in_the_hubs_layout_trains_through_the_command(lmplay: LMPlay, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for split, count in (("train", 300), ("validation", 20)):
        path = tmp_path / "tales" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pyarrow.table({"text": [f"Once there were {n} mice, and then one more." for n in range(count)]})
        pyarrow.parquet.write_table(table, path)
    dataset = {"source": "hub", "args": {"path": "tales"}, "validation": {"split": "validation"}}
    stages = [{"name": "s", "datasets": {"tales": 1}, "epochs": 1}]
    (tmp_path / "p.json").write_text(json.dumps({"version": 1, "datasets": {"tales": dataset}, "stages": stages}))
    done = lmplay(
        *("run", "test_runner", "--plan", "p.json", "--steps", "2", "--json", "--set", "train.batch_size=4"),
        *("--set", "model.max_len=64", "--set", "train.sample_tokens=0"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 2
