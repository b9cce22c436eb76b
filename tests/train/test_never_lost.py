"""What can befall a run from outside, each in a real process, and what is left of the run then: everything."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lmplay.cli.main import app
from lmplay.runs import read_status
from lmplay.train.keep.checkpoint import ABOUT, TRAINER_STATE, checkpoint_steps, damage, remove_checkpoint
from lmplay.train.keep.checkpoint import _sum as sum_of
from tests.train.reading import QUICK, events, rows, same_weights, wait_until

NewRun = Callable[..., Path]


def without_limit(run: Path) -> None:
    """The next worker trains to the end of the plan."""
    asked = json.loads((run / "run.json").read_text())
    asked["request"]["limits"]["steps"] = None
    (run / "run.json").write_text(json.dumps(asked))


@pytest.fixture(scope="module")
def made_once() -> list[Path]:
    return []


@pytest.fixture
def undisturbed(made_once: list[Path], new_run: NewRun, workers: Any) -> Path:
    """Ten steps, a checkpoint every second one; the same run for all tests, which only look at it."""
    if not made_once:
        run = new_run("undisturbed", sets=QUICK)
        assert workers.run(run) == 0
        made_once.append(run)
    return made_once[0]


# Checkpoints


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("trainer.pt", flip_a_bit),
        ("model.safetensors", lambda file: os.truncate(file, 1000)),
        ("model.json", lambda file: file.unlink()),
        (ABOUT, lambda file: file.write_text("{")),
    ],
)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(
    file: str, harm: Callable[[Path], None], undisturbed: Path, new_run: NewRun, workers: Any
) -> None:
    run = new_run("damaged", sets=QUICK, limits={"steps": 6})
    assert workers.run(run) == 0
    harm(run / "checkpoints/6" / file)
    without_limit(run)
    assert workers.run(run) == 0
    assert events(run, "resumed")[0]["step"] == 4
    assert "checkpoint 6" in events(run, "warning")[0]["message"]
    assert (run / "checkpoints/6.damaged").is_dir()
    assert same_weights(run, undisturbed)
    assert all(damage(run / "checkpoints" / str(step)) is None for step in checkpoint_steps(run / "checkpoints"))


def test_a_pickle_from_elsewhere_is_refused(tmp_path: Path, new_run: NewRun, workers: Any) -> None:
    run = new_run("tampered", sets=QUICK, limits={"steps": 2})
    assert workers.run(run) == 0
    trap = tmp_path / "it ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(trap),))

    state = run / "checkpoints/2" / TRAINER_STATE
    state.write_bytes(pickle.dumps({"format": 1, "optimizer": Trap()}))
    about = json.loads((run / "checkpoints/2" / ABOUT).read_text())
    about["sums"][TRAINER_STATE] = sum_of(state)
    (run / "checkpoints/2" / ABOUT).write_text(json.dumps(about))
    assert workers.run(run) == 1
    assert not trap.exists()
    assert "is refused" in read_status(run).reason


def test_a_checkpoint_that_was_being_replaced_when_the_power_went_gets_its_name_back(
    undisturbed: Path, new_run: NewRun, workers: Any
) -> None:
    run = new_run("replaced", sets=QUICK, limits={"steps": 4})
    assert workers.run(run) == 0
    checkpoints = run / "checkpoints"
    # What a crash between the two renames leaves of the only checkpoint, and one in the middle of a pointer.
    remove_checkpoint(checkpoints, 2)
    (checkpoints / "4").rename(checkpoints / ".4.77.old")
    (checkpoints / ".4.77.tmp").mkdir()
    (checkpoints / ".latest.xyz").mkdir()
    without_limit(run)
    assert workers.run(run) == 0
    assert events(run, "resumed")[0]["step"] == 4
    assert same_weights(run, undisturbed)
    assert not [path.name for path in checkpoints.iterdir() if path.name.startswith(".")]

    (checkpoints / "best").unlink()  # killed before it was set: the next worker knows
    assert workers.run(run) == 0
    assert (checkpoints / "best").resolve().name == "10"


def test_a_slow_disk_does_not_hold_the_step(new_run: NewRun, workers: Any) -> None:
    run = new_run("slow", sets=(*QUICK, "train.save_interval=16"))
    assert workers.run(run, save_takes_until_step=7) == 0
    saved = events(run, "saved")
    assert [event["step"] for event in saved] == [4, 8, 10]
    made = rows(run)
    assert made[7]["clock"] < saved[0]["clock"], "steps went on while the first checkpoint was written"
    assert made[9]["clock"] > saved[0]["clock"], "the second waited for it: there is one snapshot at a time"


def test_retention_keeps_the_newest_milestones_ends_of_stages_and_the_best(
    small_plan: Callable[..., Path], new_run: NewRun, workers: Any
) -> None:
    plan = small_plan(samples=20, stages=2)
    keep = ("train.keep_checkpoints=1", "train.keep_every=12", "train.save_interval=4")
    run = new_run("kept", plan=plan, sets=(*QUICK, *keep))
    assert workers.run(run) == 0
    # Five steps a stage: ends at 5 and 10; multiples of 12 samples at 3, 6 and 9.
    assert checkpoint_steps(run / "checkpoints") == [3, 5, 6, 9, 10]
    assert (run / "checkpoints/best").resolve().name == "10"


def test_a_disk_with_little_room_holds_the_best_and_the_newest_only(new_run: NewRun, workers: Any) -> None:
    keep = ("train.keep_checkpoints=0", "train.keep_free_gb=1000000", "train.validation_interval=24")
    run = new_run("short", sets=(*QUICK, *keep, "train.lr=10"), limits={"steps": 10})
    assert workers.run(run) == 0
    best = min((row["loss"], step) for step, row in rows(run, "validate").items() if step)[1]
    assert checkpoint_steps(run / "checkpoints") == sorted({best, 10})


def test_looking_at_the_model_changes_nothing_in_its_training(undisturbed: Path, new_run: NewRun, workers: Any) -> None:
    looks = ("train.validation_interval=4", "train.sample_tokens=3", "train.diagnostics_interval=8")
    run = new_run("watched", sets=(*QUICK, *looks))
    assert workers.run(run) == 0
    assert sorted(rows(run, "validate")) == list(range(11))
    seen, unseen = rows(run), rows(undisturbed)
    assert [seen[step]["loss"] for step in seen] == [unseen[step]["loss"] for step in unseen]
    assert all("gradient_noise" in seen[step] and "update_ratio.blocks.1" in seen[step] for step in (4, 6, 8, 10))
    assert same_weights(run, undisturbed)


# Full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 MB of its own, where the system lets this user mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as sink:
        while True:
            sink.write(bytes(1 << 12))


def test_a_full_disk_pauses_the_run_which_goes_on_when_there_is_room(
    undisturbed: Path, small_disk: Path, new_run: NewRun, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMPLAY_RUNS", str(small_disk))
    run = new_run("full", sets=QUICK)
    worker = workers.start(run, slow_step=0.1)
    wait_until(lambda: bool(events(run, "saved")) if (run / "events.jsonl").exists() else False, what="a checkpoint")
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    wait_until(lambda: read_status(run).state == "paused", what="a pause")
    assert "waiting for room" in read_status(run).fields["activity"]
    step = read_status(run).step
    time.sleep(1.5)
    assert read_status(run).step == step
    filler.unlink()
    worker.join(60)
    assert worker.exitcode == 0
    assert read_status(run).state == "done"
    assert sorted(rows(run)) == list(range(1, 11)), "no row was lost"
    assert same_weights(run, undisturbed)


def test_a_checkpoint_waits_for_room_with_its_memory_and_a_stop_does_not_wait(
    tmp_path: Path, undisturbed: Path, new_run: NewRun, workers: Any
) -> None:
    marker = tmp_path / "full"
    marker.touch()
    run = new_run("waiting", sets=QUICK)
    worker = workers.start(run, full_disk_while=str(marker))
    wait_until(lambda: read_status(run).state == "paused", what="a pause")
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 128 + signal.SIGTERM
    assert "was not saved" in events(run, "warning")[-1]["message"]
    assert checkpoint_steps(run / "checkpoints") == []

    worker = workers.start(run, full_disk_while=str(marker))
    wait_until(lambda: read_status(run).state == "paused", what="a pause")
    marker.unlink()
    worker.join(60)
    assert worker.exitcode == 0
    assert events(run, "saved")[0]["step"] == 2, "the snapshot was of the step at which it was taken"
    assert same_weights(run, undisturbed)


# Signals and time


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_has_an_exit_status_of_its_own(number: int, new_run: NewRun, workers: Any) -> None:
    run = new_run("signalled", sets=QUICK)
    worker = workers.start(run, slow_step=0.05)
    wait_until(lambda: read_status(run).step >= 3, what="step 3")
    os.kill(worker.pid, number)
    worker.join(30)
    assert worker.exitcode == 128 + number
    status = read_status(run)
    assert (status.state, status.reason) == ("stopped", signal.Signals(number).name)
    assert CliRunner().invoke(app, ["attach", "signalled"]).exit_code == 128 + number, "watching it tells the same"
    assert max(rows(run)) == max(checkpoint_steps(run / "checkpoints"))


def test_a_signal_during_the_imports_ends_the_run_in_an_orderly_way(new_run: NewRun, workers: Any) -> None:
    run = new_run("early", sets=QUICK)
    assert workers.run(run, signalled_early=int(signal.SIGTERM)) == 128 + signal.SIGTERM
    status = read_status(run)
    assert (status.state, status.reason) == ("stopped", "SIGTERM")


def test_a_run_that_is_deleted_while_it_trains_ends_and_stays_deleted(new_run: NewRun, workers: Any) -> None:
    run = new_run("deleted", sets=QUICK)
    worker = workers.start(run, slow_step=0.05)
    wait_until(lambda: read_status(run).step >= 3, what="step 3")
    log = (run / "worker.log").open()
    hidden = run.rename(run.with_name(".taken-away"))
    shutil.rmtree(hidden)
    worker.join(30)
    assert worker.exitcode == 3
    assert log.read() == f"lmplay: the run deleted is gone: {run} was deleted or moved away; it ends here\n"
    assert not run.exists()


def test_a_signal_does_not_wait_for_a_validation_which_is_made_up_for(
    undisturbed: Path, new_run: NewRun, workers: Any
) -> None:
    run = new_run("validating", sets=QUICK)
    worker = workers.start(run, slow_validation=0.2)
    wait_until(lambda: read_status(run).fields.get("activity") == "validating", what="the first validation")
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 128 + signal.SIGTERM
    assert rows(run, "validate") == {}
    assert workers.run(run) == 0
    assert rows(run, "validate")[0]["loss"] == rows(undisturbed, "validate")[0]["loss"]
    assert same_weights(run, undisturbed)


def test_interrupted_twice_it_exits_now(new_run: NewRun, workers: Any) -> None:
    run = new_run("hurried", sets=QUICK)
    worker = workers.start(run, slow_step=20)
    wait_until(lambda: bool(events(run, "stage")) if (run / "events.jsonl").exists() else False, what="the first step")
    for _ in range(2):
        os.kill(worker.pid, signal.SIGINT)
        time.sleep(0.2)
    worker.join(5)
    assert worker.exitcode == 130
    assert read_status(run).reason == "interrupted twice: not saved"


def test_the_hours_of_a_worker_are_kept_and_another_goes_on(undisturbed: Path, new_run: NewRun, workers: Any) -> None:
    run = new_run("timed", sets=QUICK, limits={"hours": 10 / 3600})
    assert workers.run(run, slow_step=2.0) == 0
    status = read_status(run)
    assert status.state == "stopped"
    assert "--max-hours" in status.reason
    assert status.step < 10, "ten steps of two seconds each don't fit"
    assert checkpoint_steps(run / "checkpoints")[-1] == status.step
    assert workers.run(run) == 0
    assert same_weights(run, undisturbed)
