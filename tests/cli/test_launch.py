"""The same command goes on with what it began; other words are refused key by key or begin another run."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lmplay.cli.launch import Asked, Prepared, prepare, take_run
from lmplay.exp.gpt2ish.model import GPT2
from lmplay.runs import RunWriter, read_run_file, steered, write_run_file
from lmplay.utils.errors import LMPlayError, WrongUsageError


def asked(**changes: object) -> Prepared:
    plan = changes.pop("plan", "quickstart")
    return prepare(Asked(experiment="test_runner", plan=str(plan), device="cpu", **changes))  # type: ignore[arg-type]


def leave(run: Path, state: str) -> None:
    (run / "status.json").write_text(json.dumps({"state": state, "step": 3, "updated": 1.0}))


def test_the_same_words_without_a_name_go_on_with_the_interrupted_run() -> None:
    first = take_run(asked(), name=None)
    assert first.is_new
    leave(first.path, "stopped")
    again = take_run(asked(), name=None)
    assert (again.path, again.is_new, again.state) == (first.path, False, "stopped")


def test_other_words_a_finished_run_and_new_begin_another() -> None:
    first = take_run(asked(), name=None)
    leave(first.path, "stopped")
    assert take_run(asked(train={"lr": 0.5}), name=None).path != first.path
    assert take_run(asked(), name=None, new=True).path != first.path
    for other in first.path.parent.iterdir():
        leave(other, "done")
    assert take_run(asked(), name=None).is_new


def test_a_changed_setting_is_refused_by_name_unless_allowed() -> None:
    taken = take_run(asked(seed=1), name="mine")
    leave(taken.path, "stopped")
    changed = asked(seed=2, train={"lr": 0.5})
    with pytest.raises(WrongUsageError) as refused:
        take_run(changed, name="mine")
    assert "seed was 1 and is now 2, train.lr was not set and is now 0.5" in str(refused.value)
    assert "--allow-change seed --allow-change train.lr" in str(refused.value)
    with pytest.raises(WrongUsageError, match=r"\(seed was 1"):
        take_run(changed, name="mine", allow_change=["train.lr"])
    assert read_run_file(taken.path)["request"]["seed"] == 1, "a refusal changes nothing"
    take_run(changed, name="mine", allow_change=["train.lr", "seed"])
    assert read_run_file(taken.path)["request"]["seed"] == 2
    assert read_run_file(taken.path)["request"]["train"] == {"lr": 0.5}


def test_a_larger_limit_needs_no_word_where_it_changes_nothing_before_it() -> None:
    constant = {"sets": ("train.schedule=constant",)}
    taken = take_run(asked(limits={"steps": 10}, **constant), name="grows")
    leave(taken.path, "done")
    assert not take_run(asked(limits={"steps": 20}, **constant), name="grows").is_new
    assert read_run_file(taken.path)["request"]["limits"]["steps"] == 20

    decays = take_run(asked(limits={"steps": 10}), name="decays")  # the quickstart's schedule is cosine
    leave(decays.path, "done")
    with pytest.raises(WrongUsageError, match=r"limits\.steps was 10 and is now 20"):
        take_run(asked(limits={"steps": 20}), name="decays")


def test_a_running_run_is_not_taken_twice() -> None:
    taken = take_run(asked(), name="busy")
    with RunWriter(taken.path), pytest.raises(LMPlayError, match="lmplay attach busy"):
        take_run(asked(), name="busy")


def test_an_edited_plan_is_a_changed_setting(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "plans/quickstart.json"
    plan = tmp_path / "mine.json"
    plan.write_text(source.read_text())
    taken = take_run(asked(plan=plan), name="planned")
    leave(taken.path, "stopped")
    plan.write_text(source.read_text().replace("250000", "300000"))
    with pytest.raises(WrongUsageError, match=r"plan\.stages\.0\.tokens was 250000 and is now 300000"):
        take_run(asked(plan=plan), name="planned")
    assert not take_run(asked(plan=plan), name="planned", allow_change=["plan"]).is_new


def test_an_edited_experiment_is_a_changed_setting(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(Path(inspect.getfile(GPT2)).parent, copy)
    before = replace(asked(), experiment_file=str(copy / "versions.py"))
    taken = take_run(before, name="coded")
    leave(taken.path, "stopped")
    assert not take_run(before, name="coded").is_new
    with (copy / "model.py").open("a") as file:
        file.write("# another idea\n")
    with pytest.raises(WrongUsageError, match=r"code was '\w{8}' and is now '\w{8}'.*--allow-change code"):
        take_run(before, name="coded")
    assert not take_run(before, name="coded", allow_change=["code"]).is_new
    assert not take_run(before, name="coded").is_new, "what was allowed is what the run is now"


def test_a_new_run_does_not_overwrite_a_name() -> None:
    taken = take_run(asked(), name="mine")
    leave(taken.path, "done")
    with pytest.raises(WrongUsageError, match="choose another --name"):
        take_run(asked(), name="mine", new=True)


def test_the_same_words_go_on_with_a_run_whose_settings_were_changed_while_it_ran() -> None:
    taken = take_run(asked(), name="steered")
    run = read_run_file(taken.path)
    changed = {**run["request"], "train": {"lr": 0.25}, "limits": {**run["request"]["limits"], "steps": 9}}
    write_run_file(taken.path, {**run, "typed_request": run["request"], "request": changed})
    leave(taken.path, "lost")
    as_it_is_now = asked(train={"lr": 0.25})
    for words in (asked(), as_it_is_now):
        assert not take_run(words, name="steered").is_new
        assert read_run_file(taken.path)["request"] == changed
    assert take_run(asked(), name=None).path == taken.path
    with pytest.raises(WrongUsageError, match=r"train\.lr was 0\.25 and is now 0\.5"):
        take_run(asked(train={"lr": 0.5}), name="steered")
    take_run(asked(seed=2), name="steered", allow_change=["seed"])
    assert steered(read_run_file(taken.path)) == {"train.lr": 0.25, "limits.steps": 9}
    assert read_run_file(taken.path)["request"] == {**changed, "seed": 2}
