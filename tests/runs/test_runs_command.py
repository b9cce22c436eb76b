"""`lmplay runs` and what is done with whole runs, as typed."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from lmplay.plans import load_plan
from lmplay.runs import RunWriter, create_run, read_run_file, write_run_file
from lmplay.runs.labels import read_labels

from .conftest import Here


def make(root: Path, name: str, *, lr: float = 1e-3, state: str = "done", loss: float = 3.5, **asked: Any) -> Path:
    request = {"experiment": "gpt2ish", "plan": "quickstart", "seed": 1, "device": "auto", "train": {"lr": lr}}
    request |= {"model": {"num_blocks": 2}, "data": {}, "limits": {"steps": 10, "samples": None}, "initial_model": None}
    path = create_run(
        "gpt2ish",
        name=name,
        root=root,
        seed=1,
        request=request,
        plan={
            "name": "quickstart",
            "content": {"stages": [{"name": "learn", "tokens": 1000, "datasets": {"docs": 1}}]},
        },
        config={"model": {"num_blocks": 2}, "stages": [{"name": "learn", "train": {"lr": lr, "batch_size": 8}}]},
        git={"commit": "0123456789abcdef", "branch": "main", "changed": True},
        versions={"torch": "2.13.0"},
        cost={"parameters": 123456},
        **asked,
    )
    with RunWriter(path) as writer:
        writer.event("started")
        writer.metrics(
            {"kind": "train", "stage": "learn", "step": 10, "samples": 80, "tokens": 800, "time": 5.0, "loss": loss}
        )
        writer.metrics({"kind": "validate", "step": 10, "loss": loss + 0.5, "perplexity": 55.0})
        writer.status(state=state, total_samples=80)
    return path


@pytest.fixture
def runs(runs_folder: Path) -> Path:
    make(runs_folder, "good")
    make(runs_folder, "bad", lr=1e-2, state="failed", loss=9.0)
    return runs_folder


def test_json_list_has_the_promised_keys(runs: Path, here: Here) -> None:
    found = json.loads(here("runs", "--json").output)
    promised = {"run", "path", "experiment", "state", "step", "tokens", "loss", "validation_loss", "pid", "tags"}
    assert all(promised <= set(row) for row in found)
    assert {row["run"]: (row["state"], row["validation_loss"]) for row in found} == {
        "good": ("done", 4.0),
        "bad": ("failed", 9.5),
    }
    assert found[0]["path"] == str(runs / found[0]["run"])


@pytest.mark.usefixtures("runs")
def test_list_is_filtered_sorted_and_cut(here: Here) -> None:
    def names(*arguments: str) -> list[str]:
        return [row["run"] for row in json.loads(here("runs", *arguments, "--json").output)]

    assert names("loss<4") == ["good"]
    assert names("-state:failed") == ["good"]
    assert names("exp:gpt2ish", "lr>=5e-3") == ["bad"]
    assert names("--sort", "-loss") == ["bad", "good"]
    assert names("--sort", "loss", "--limit", "1") == ["good"]
    shown = here("runs", "--columns", "run,lr,batch_size,parameters").output.splitlines()
    assert shown[0].split() == ["run", "lr", "batch_size", "parameters"]
    assert [line.split() for line in shown[1:]] == [["bad", "0.01", "8", "123.5k"], ["good", "0.001", "8", "123.5k"]]


def test_host_and_age_are_shown_where_the_folder_is_shared(
    runs: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "host" not in here("runs").output.splitlines()[0].split()
    elsewhere = {"state": "running", "pid": 1, "host": "node7", "updated": time.time() - 30, "step": 5, "loss": 2.0}
    (runs / "bad" / "status.json").write_text(json.dumps(elsewhere))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    head, *lines = re.sub(r"\x1b\[[\d;]*m", "", here("runs", "--sort", "run").output).splitlines()
    assert {"run", "state", "host", "age"} <= set(head.split())
    assert "node7" in lines[0]
    assert lines[0].split()[-2:] == ["30", "s"]


def test_rows_of_a_narrow_terminal_are_cut_and_reasons_are_not(
    runs: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs / "bad").rename(runs / ("bad" * 20))
    (runs / ("bad" * 20) / "status.json").write_text("{")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    output = re.sub(r"\x1b\[[\d;]*m", "", here("runs", "--sort", "run", "--columns", "run,state,loss").output)
    head, *rows, reason = output.splitlines()
    assert all(len(row) <= 40 for row in (head, *rows))
    assert head.split() == ["run", "state", "loss"]
    assert [row.split()[1:] for row in rows] == [["broken"], ["done", "3.5000"]]
    assert rows[0].split()[0].endswith("…")
    assert reason.startswith(f"{'bad' * 20}: status.json")


@pytest.mark.usefixtures("runs")
def test_mistakes_name_what_was_meant(here: Here) -> None:
    for arguments, says in (
        (("runs", "los<4"), "did you mean loss"),
        (("runs", "--sort", "batchsize"), "did you mean train.batch_size"),
        (("runs", "--srot", "loss"), "did you mean --sort"),
        (("runs", "show", "goood"), "did you mean good"),
        (("runs", "rename", "good", "a/b"), "can't be a run's name"),
        (("runs", "delete", "good"), "--yes"),
    ):
        said = here(*arguments)
        assert said.status == 2, arguments
        assert says in said.errors
        assert len(said.errors.splitlines()) == 1


def test_empty_folder_says_how_to_begin(here: Here) -> None:
    assert "lmplay run EXPERIMENT" in here("runs").output
    assert here("runs", "--json").output.strip() == "[]"


def test_broken_run_is_listed_with_its_reason(runs: Path, here: Here) -> None:
    (runs / "bad" / "run.json").write_text("{")
    said = here("runs").output
    assert "broken" in said
    assert "run.json of the run bad is damaged" in said
    assert here("runs", "show", "bad").status == 1
    assert here("runs", "delete", "bad", "--yes").status == 0
    assert not (runs / "bad").exists()


@pytest.mark.usefixtures("runs")
def test_show_tells_everything(here: Here) -> None:
    said = here("runs", "show", "good").output
    for expected in (
        "done",
        "train.lr",
        "0.001",
        "0123456789ab on main, changed",
        "torch 2.13.0",
        "learn",
        "123,456",
        "started",
    ):
        assert expected in said, expected
    found = json.loads(here("runs", "show", "good", "--json").output)
    assert found["config"]["train.batch_size"] == 8
    assert [event["event"] for event in found["events"]] == ["started"]
    assert (found["checkpoints"], found["latest"]) == ([], None)


@pytest.mark.parametrize("command", ["runs show", "runs diff good", "runs clone", "attach", "compare", "plot"])
def test_run_of_a_newer_lmplay_is_one_line_in_every_command(runs: Path, here: Here, command: str) -> None:
    (runs / "bad" / "run.json").write_text(json.dumps({"format": 9}))
    said = here(*command.split(), "bad")
    assert (said.status, said.output) == (1, "")
    assert said.errors.startswith("lmplay: the run bad was written by a newer lmplay (run format 9")
    assert said.errors.count("\n") == 1


def test_show_gives_as_many_of_the_newest_events_as_were_asked_for(runs: Path, here: Here) -> None:
    with RunWriter(runs / "good") as writer:
        for step in range(1, 10):
            writer.event("validated", step=step, loss=1 / 3)
    shown = {
        count: here("runs", "show", "good", "--events", str(count)).output.partition("events\n")[2].splitlines()
        for count in (0, 3, 15)
    }
    assert [len(lines) for lines in shown.values()] == [1, 4, 10]
    assert shown[3][2].split()[2:] == ["validated", "step=9", "loss=0.33333"]
    assert shown[15][0].split()[2] == "started"
    assert shown[0] == ["  (10 earlier; --events 10 shows them all)"]


@pytest.mark.usefixtures("runs")
def test_diff_shows_settings_that_differ_and_no_others(here: Here) -> None:
    assert json.loads(here("runs", "diff", "good", "bad", "--json").output) == {"train.lr": [0.001, 0.01]}
    lines = here("runs", "diff", "good", "bad").output.splitlines()
    assert [line.split() for line in lines] == [["setting", "good", "bad"], ["train.lr", "0.001", "0.01"]]
    assert "same settings" in here("runs", "diff", "good", "good").output
    assert "created" in here("runs", "diff", "good", "bad", "--all").output


def test_labels_names_and_the_archive(runs: Path, here: Here) -> None:
    assert here("runs", "tag", "good", "keep", "wide").output.strip() == "good: keep, wide"
    assert here("runs", "tag", "good", "-wide").output.strip() == "good: keep"
    assert json.loads(here("runs", "tag", "good", "--json").output)["tags"] == ["keep"]  # no tag to take away
    refused = here("runs", "tag", "good", "--keep")
    assert refused.status == 2
    assert "removed with one minus" in refused.errors
    here("runs", "note", "good", "look", "again")
    assert here("runs", "note", "good").output.strip() == "look again"
    assert read_labels(runs / "good").note == "look again"
    assert [row["run"] for row in json.loads(here("runs", "tag:keep", "--json").output)] == ["good"]
    assert here("runs", "rename", "good", "better").status == 0
    assert here("runs", "archive", "better").status == 0
    assert [row["run"] for row in json.loads(here("runs", "--json").output)] == ["bad"]
    assert [row["run"] for row in json.loads(here("runs", "--archived", "--json").output)] == ["better"]
    assert here("runs", "archive", "--undo", "better").status == 0
    assert here("runs", "show", "better").status == 0


def test_live_run_is_neither_deleted_nor_renamed(runs: Path, here: Here) -> None:
    with RunWriter(runs / "good") as writer:
        writer.status(state="running")
        for command in (("delete", "good", "--yes"), ("rename", "good", "x"), ("archive", "good")):
            said = here("runs", *command)
            assert said.status == 1
            assert "good" in said.errors
    assert (runs / "good" / "run.json").exists()


@pytest.mark.usefixtures("runs")
def test_clone_prints_the_command_that_asks_for_the_same_with_changes(here: Here) -> None:
    said = here(
        "runs", "clone", "good", "--set", "train.lr=3e-4", "--set", "model.num_heads=4", "--seed", "7", "--print"
    )
    assert shlex.split(said.output) == shlex.split(
        "lmplay run gpt2ish --plan quickstart --seed 7 --steps 10 --set model.num_blocks=2 --set train.lr=3e-4 "
        "--set model.num_heads=4 --new"
    )
    assert here("runs", "clone", "good", "--set", "train.lr", "--print").status == 2


def test_clone_finds_the_file_of_the_plan_again(runs: Path, here: Here, tmp_path: Path) -> None:
    plan = tmp_path / "mine.json"
    plan.write_text(json.dumps({"learn": {"dataset": "pydocs", "epochs": 1}}))
    asked = read_run_file(runs / "good")
    content = load_plan(plan).model_dump(mode="json")
    asked["plan"] = {"name": "mine", "folder": str(tmp_path), "content": content}
    write_run_file(runs / "good", {**asked, "request": {**asked["request"], "plan": "mine"}})
    said = here("runs", "clone", "good", "--print")
    assert said.output.startswith(f"lmplay run gpt2ish --plan {plan} --seed 1")
    assert said.errors == ""
    plan.write_text(json.dumps({"learn": {"dataset": "pydocs", "epochs": 2}}))
    assert "is not what it was then" in here("runs", "clone", "good", "--print").errors
    plan.unlink()
    gone = here("runs", "clone", "good", "--print")
    assert (gone.status, gone.errors) == (1, f"lmplay: the plan of good has gone: there was a file {plan}\n")


def test_settings_changed_while_running_are_those_shown(runs: Path, here: Here) -> None:
    asked = read_run_file(runs / "good")
    before = (runs / "good" / "run.json").stat().st_mtime_ns
    asked["request"]["train"]["lr"] = 5e-4
    write_run_file(runs / "good", asked)
    assert json.loads(here("runs", "show", "good", "--json").output)["config"]["train.lr"] == 5e-4
    assert (runs / "good" / "run.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("runs")
def test_attach_to_a_finished_run_shows_how_it_ended(here: Here) -> None:
    said = here("attach", "good")
    assert said.status == 0
    assert said.output.splitlines()[-1] == "good done: 10 steps, 800 tokens, loss 3.5000, validation loss 4.0000"
    assert here("attach", "bad").status == 1
