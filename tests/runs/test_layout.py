"""Names, listing and resolving of runs and checkpoints, and one clear line for each way a run can be broken."""

from __future__ import annotations

import gc
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from lmplay.runs import (
    create_run,
    list_runs,
    new_run_name,
    point_to,
    read_pointer,
    read_run_file,
    read_status,
    resolve_checkpoint,
    resolve_run,
    runs_root,
    summarize,
    summarize_all,
)
from lmplay.runs.labels import archive_run, change_labels, delete_run, read_labels, rename_run
from lmplay.utils.errors import LMPlayError, WrongUsageError


def make_checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / str(step)
    folder.mkdir()
    (folder / "model.json").write_text("{}")
    return folder


def test_new_names_say_experiment_and_time_and_stay_inside_the_folder() -> None:
    assert re.fullmatch(r"gpt2ish-\d{8}-\d{6}-[0-9a-f]{4}", new_run_name("gpt2ish"))
    assert new_run_name("gpt2ish") != new_run_name("gpt2ish")
    assert re.fullmatch(r"etc_passwd-\d{8}-\d{6}-[0-9a-f]{4}", new_run_name("../etc/passwd"))


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", ".hidden", "-x", "last", "x" * 121, "a b", "a\n"])
def test_names_that_could_escape_or_mislead_are_refused(name: str) -> None:
    if name:
        with pytest.raises(WrongUsageError, match="can't be"):
            create_run("fake", name=name)
    assert list_runs() == []


def test_taken_name_is_refused_and_the_run_left_alone(run: Path) -> None:
    with pytest.raises(WrongUsageError, match="already"):
        create_run("other", name="one")
    assert read_run_file(run)["experiment"] == "fake"
    assert [path.name for path in run.parent.iterdir()] == ["one"]


def test_root_is_the_environment_or_runs_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert runs_root() == tmp_path / "runs"
    monkeypatch.delenv("LMPLAY_RUNS")
    monkeypatch.chdir(tmp_path)
    assert runs_root() == tmp_path / "runs"


def test_runs_are_found_by_name_beginning_path_and_last(run: Path) -> None:
    other = create_run("fake", name="other-20250101")
    os.utime(run / "run.json", (1, 1))
    assert resolve_run("one") == run
    assert resolve_run("oth") == other
    assert resolve_run("last") == other
    assert resolve_run(str(run)) == run
    with pytest.raises(WrongUsageError, match="holds neither a run"):
        resolve_run(str(run.parent))
    assert list_runs() == [other, run]
    with pytest.raises(WrongUsageError, match="2 runs begin with 'o'"):
        resolve_run("o")
    with pytest.raises(WrongUsageError, match="did you mean one"):
        resolve_run("onne")


def test_checkpoints_are_found_by_run_pointer_step_and_path(run: Path) -> None:
    with pytest.raises(LMPlayError, match="no checkpoint yet"):
        resolve_checkpoint("one")
    ten, twenty = make_checkpoint(run, 10), make_checkpoint(run, 20)
    assert resolve_checkpoint("one") == twenty
    point_to(run / "checkpoints", "latest", "10")
    assert resolve_checkpoint("one") == ten
    assert resolve_checkpoint("one@20") == twenty
    assert resolve_checkpoint(str(twenty)) == twenty
    assert resolve_checkpoint(str(run / "checkpoints" / "latest")) == ten
    with pytest.raises(LMPlayError, match="no best"):
        resolve_checkpoint("one@best")
    with pytest.raises(WrongUsageError, match="it has 10, 20"):
        resolve_checkpoint("one@15")


def test_pointer_is_a_link_or_a_file_and_never_leads_elsewhere(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = run / "checkpoints"
    make_checkpoint(run, 10)
    point_to(checkpoints, "best", "10")
    assert (checkpoints / "best").readlink() == Path("10")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_to(checkpoints, "best", "10")
    assert (checkpoints / "best").read_text() == "10\n"
    assert read_pointer(checkpoints, "best") == checkpoints / "10"
    for elsewhere in ("../../secret", "/etc", "..", ""):
        (checkpoints / "best").write_text(elsewhere)
        assert read_pointer(checkpoints, "best") is None
    assert sorted(path.name for path in checkpoints.iterdir()) == ["10", "best"]


def _write(name: str, content: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(content)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: (run / "run.json").unlink(), "has no run.json"),
        (lambda run: (run / "status.json").unlink(), "has no status.json"),
        (_write("run.json", "{"), "run.json of the run one is damaged"),
        (_write("run.json", "[]"), "does not hold an object"),
        (_write("run.json", json.dumps({"format": 9})), "newer lmplay (run format 9, this one reads 1): update lmplay"),
        (_write("status.json", json.dumps({"state": "dancing"})), "its state is 'dancing'"),
        (_write("status.json", "\0" * 100), "status.json of the run one is damaged"),
        (_write("status.json", "[" * 100000), "status.json of the run one is damaged"),
    ],
)
def test_broken_run_is_one_clear_line_and_hides_no_other(run: Path, spoil: Callable[[Path], object], says: str) -> None:
    create_run("fake", name="sound")
    spoil(run)
    broken = summarize(run)
    assert broken.state == "broken"
    assert says in broken.status.reason
    assert "\n" not in broken.status.reason
    assert {summary.name: summary.state for summary in summarize_all()} == {"one": "broken", "sound": "queued"}
    delete_run(run)
    assert [path.name for path in run.parent.iterdir()] == ["sound"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_run_is_one_clear_line(run: Path) -> None:
    run.chmod(0)
    try:
        assert "Permission denied" in summarize(run).status.reason
        assert len(summarize_all()) == 1
    finally:
        run.chmod(0o755)


@pytest.mark.parametrize(
    "odd",
    [
        {"config": {"stages": 5}},
        {"config": {"stages": [7, {"name": "learn", "train": [1]}]}, "request": {"train": 3}},
        {"config": [], "request": [], "git": "none", "cost": 7, "plan": 8, "command": ["a"]},
    ],
)
def test_run_file_of_others_with_odd_content_is_summarised(run: Path, odd: dict[str, object]) -> None:
    (run / "run.json").write_text(json.dumps({**read_run_file(run), **odd}))
    assert summarize(run).state == "queued"
    assert summarize(run).experiment == "fake"


def test_summary_keeps_what_lists_need_and_not_the_whole_file(run: Path) -> None:
    config = {"model": {"num_blocks": 2}, "stages": [{"name": "learn", "train": {"lr": 1e-3}}]}
    plan = {"name": "long", "content": {"names": [f"dataset {number}" for number in range(20_000)]}}
    (run / "run.json").write_text(
        json.dumps({**read_run_file(run), "config": config, "plan": plan, "git": {"commit": "12ab"}, "host": "here"})
    )
    summarize(run)  # what is made once and shared
    tracemalloc.start()
    try:
        summary = summarize(run)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 20_000, "of a file of 340 kB"
    assert dict(summary.config) == {"model.num_blocks": 2, "train.lr": 1e-3}
    assert (summary.plan, summary.origin.commit, summary.origin.host) == ("long", "12ab", "here")


def test_status_of_a_gone_process_a_reused_pid_and_a_reboot_is_lost(run: Path) -> None:
    from lmplay.runs import RunWriter

    with RunWriter(run) as writer:
        writer.status(state="running")
        assert read_status(run).state == "running"
        fields = json.loads((run / "status.json").read_text())
        reused = {**fields, "process_birth": fields["process_birth"] - 5}
        rebooted = {**fields, "boot": "another", "updated": 1.0}
        nobody = {**fields, "pid": 2**22 + 5}
        silent_elsewhere = {**fields, "host": "far", "updated": fields["updated"] - 100}
        for changed in (reused, rebooted, nobody, silent_elsewhere):
            (run / "status.json").write_text(json.dumps(changed))
            assert read_status(run).state == "lost", changed
            assert read_status(run).reason
        for changed in ({**fields, "host": "far"}, {**fields, "boot": "twin"}):
            (run / "status.json").write_text(json.dumps(changed))
            assert read_status(run).state == "running", changed


def test_labels_are_kept_apart_from_what_the_worker_writes(run: Path) -> None:
    change_labels(run, add=["good", "wide"], note="look at the second stage")
    labels = change_labels(run, add=["good"], remove=["wide"])
    assert (labels.tags, labels.note) == (("good",), "look at the second stage")
    assert read_labels(run) == labels
    (run / "labels.json").write_text("nonsense")
    assert read_labels(run).tags == ()
    with pytest.raises(WrongUsageError, match="can't be a tag"):
        change_labels(run, add=["two words"])


def test_run_that_is_written_is_neither_moved_nor_deleted(run: Path) -> None:
    from lmplay.runs import RunWriter

    with RunWriter(run):
        for act in (lambda: rename_run(run, "two"), lambda: archive_run(run), lambda: delete_run(run)):
            with pytest.raises(LMPlayError, match="being written by process"):
                act()
    assert rename_run(run, "two").name == "two"
    archive_run(run.with_name("two"))
    assert list_runs() == []
    assert [path.name for path in list_runs(archived=True)] == ["two"]
