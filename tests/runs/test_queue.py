"""The queue: order, devices, failures, and keepers that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmplay.runs import JsonlTail, create_run, is_alive, read_status
from lmplay.runs.keeper import ATTEMPTS, DeviceBusyError, Lane, find_devices
from lmplay.runs.labels import read_labels
from lmplay.runs.queue import DONE, FAILED, RUNNING, WAITING, Queue
from lmplay.utils.errors import LMPlayError, WrongUsageError

from .conftest import Here, StartWorker, wait_for

FAKE_KEEPER = Path(__file__).with_name("fake_keeper.py")


@pytest.fixture
def queue(runs_folder: Path) -> Queue:
    return Queue(runs_folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Device locks of this test alone."""
    monkeypatch.setenv("LMPLAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def start_keeper(runs_folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A real keeper process with fake workers; it and its workers are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*devices: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(FAKE_KEEPER), str(runs_folder), *(devices or ("cpu",))]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for status in runs_folder.glob("*/status.json"):
        pid = json.loads(status.read_text()).get("pid")
        if pid and is_alive(json.loads(status.read_text())):
            os.killpg(pid, signal.SIGKILL)


def states(queue: Queue) -> dict[str, str]:
    return {entry.run: entry.state for entry in queue.entries()}


def test_a_folder_that_cannot_be_written_is_one_line(queue: Queue) -> None:
    queue.root.mkdir(parents=True, exist_ok=True)
    queue.folder.write_text("no folder")
    with pytest.raises(LMPlayError, match="the queue can't be changed: File exists"):
        queue.add(["gpt2ish"])


def test_entries_keep_their_order_and_can_be_moved_and_removed(queue: Queue) -> None:
    for name in "abcd":
        queue.add(["fake", "--steps", "3"], name=name)
    queue.move("d", 1)
    queue.move("a", 9)
    assert list(states(queue)) == ["d", "b", "c", "a"]
    queue.remove("2")
    assert list(states(Queue(queue.root))) == ["d", "c", "a"]
    with pytest.raises(WrongUsageError, match="already"):
        queue.add(["fake"], name="c")
    with pytest.raises(WrongUsageError, match="no entry 'x'"):
        queue.find("x")


def test_two_takers_never_get_one_entry_and_devices_are_respected(queue: Queue) -> None:
    queue.add(["fake"], name="any")
    queue.add(["fake"], name="second-card", device="cuda:1")
    first = queue.take("cuda:0", "here/cuda:0")
    assert first is not None
    assert first.run == "any"
    assert queue.take("cuda:0", "here/cuda:0") is None
    other = queue.take("cuda:1", "here/cuda:1")
    assert other is not None
    assert other.run == "second-card"
    with pytest.raises(WrongUsageError, match="starting"):
        queue.remove("any")


def test_damaged_or_newer_queue_is_one_clear_line(queue: Queue) -> None:
    queue.add(["fake"], name="a")
    file = queue.folder / "queue.json"
    for content, says in (
        ("{", "damaged"),
        ('{"format": 2, "entries": []}', "another version"),
        ('{"format": 1}', "damaged"),
    ):
        file.write_text(content)
        with pytest.raises(LMPlayError, match=says):
            queue.entries()


def test_runs_follow_one_another_and_a_failed_one_stops_nothing(
    queue: Queue, start_keeper: Callable[..., subprocess.Popen[str]]
) -> None:
    queue.add(["fake", "--steps", "3"], name="a", group="tonight")
    queue.add(["broken"], name="b")
    queue.add(["fake", "--steps", "3"], name="c")
    start_keeper()
    wait_for(lambda: states(queue) == {"a": DONE, "b": FAILED, "c": DONE})
    assert queue.find("b").reason == "there is no experiment named broken"
    assert read_labels(queue.root / "a").group == "tonight"
    ends = [read_status(queue.root / name).fields for name in "ac"]
    assert ends[0]["ended"] <= ends[1]["worker_started"]
    queue.add(["fake", "--steps", "3"], name="later")
    wait_for(lambda: states(queue)["later"] == DONE)


def test_two_keepers_cannot_serve_one_device(
    queue: Queue, start_keeper: Callable[..., subprocess.Popen[str]], here: Here
) -> None:
    first = start_keeper("cpu")
    wait_for(lambda: bool(list(queue.folder.glob("keeper-*-cpu.json"))))
    second = start_keeper("cpu")
    assert second.wait(20) == 1
    assert second.stdout is not None
    assert "another keeper serves cpu" in second.stdout.read()
    with pytest.raises(DeviceBusyError):
        Lane(Queue(queue.root.with_name("elsewhere")), "cpu").open()
    refused = here("queue", "start", "--devices", "cpu")
    assert (refused.status, refused.errors.strip()) == (
        1,
        "lmplay: another keeper serves cpu on this machine already",
    )
    assert first.poll() is None
    assert start_keeper("cuda:5").poll() is None


def test_killed_keeper_leaves_its_run_and_the_next_one_takes_it_over(
    queue: Queue, start_keeper: Callable[..., subprocess.Popen[str]]
) -> None:
    queue.add(["fake", "--steps", "60", "--pause", "0.02"], name="a")
    queue.add(["fake", "--steps", "2"], name="b")
    keeper = start_keeper()
    wait_for(lambda: states(queue)["a"] == RUNNING)
    keeper.kill()
    keeper.wait()
    wait_for(lambda: read_status(queue.root / "a").active)
    start_keeper()
    wait_for(lambda: read_status(queue.root / "a").step > 20)
    assert states(queue) == {"a": RUNNING, "b": WAITING}
    wait_for(lambda: states(queue) == {"a": DONE, "b": DONE})
    assert queue.find("a").attempts == 1
    assert len([row for row in JsonlTail(queue.root / "a" / "events.jsonl").read() if row["event"] == "started"]) == 1


def test_keepers_killed_at_random_moments_lose_nothing_and_run_nothing_twice(
    queue: Queue, start_keeper: Callable[..., subprocess.Popen[str]]
) -> None:
    names = [f"r{number}" for number in range(5)]
    for name in names:
        queue.add(["fake", "--steps", "10", "--pause", "0.01"], name=name)
    dice = random.Random(7)
    for _ in range(6):
        keeper = start_keeper()
        time.sleep(dice.uniform(0.2, 0.9))
        keeper.kill()
        keeper.wait()
    start_keeper()
    wait_for(lambda: set(states(queue).values()) == {DONE}, seconds=60)
    assert list(states(queue)) == names
    times = []
    for name in names:
        status = read_status(queue.root / name)
        assert (status.state, status.step) == ("done", 10)
        rows = [row["step"] for row in JsonlTail(queue.root / name / "metrics.jsonl").read() if row["kind"] == "train"]
        assert rows == list(range(1, 11))
        times.append((status.fields["worker_started"], status.fields["ended"]))
    for before, after in zip(sorted(times)[:-1], sorted(times)[1:], strict=True):
        assert before[1] <= after[0]


def test_run_that_is_killed_goes_on_and_one_that_always_dies_is_given_up(
    queue: Queue, start_keeper: Callable[..., subprocess.Popen[str]]
) -> None:
    queue.add(["fake", "--steps", "30", "--save-every", "10", "--crash-at", "15"], name="dies")
    queue.add(["fake", "--steps", "30", "--pause", "0.02", "--save-every", "5"], name="killed")
    start_keeper()
    wait_for(lambda: states(queue)["dies"] == FAILED)
    assert f"given up after {ATTEMPTS} attempts" in queue.find("dies").reason
    run = queue.root / "killed"
    wait_for(lambda: states(queue)["killed"] == RUNNING and read_status(run).step > 6)
    os.kill(read_status(run).pid or 0, signal.SIGKILL)
    wait_for(lambda: states(queue)["killed"] == DONE)
    assert queue.find("killed").attempts == 2


def test_device_that_a_run_by_hand_has_is_waited_for(
    queue: Queue, start_keeper: Callable[..., subprocess.Popen[str]], start_worker: StartWorker
) -> None:
    mine = create_run("fake", name="mine")
    start_worker(mine, "--steps", "100000", "--pause", "0.01", "--device", "cpu")
    wait_for(lambda: read_status(mine).state == "running")
    queue.add(["fake", "--steps", "2"], name="a")
    start_keeper()
    time.sleep(0.7)
    assert states(queue) == {"a": WAITING}
    os.kill(read_status(mine).pid or 0, signal.SIGKILL)
    wait_for(lambda: states(queue) == {"a": DONE})


def test_keeper_stops_when_told_and_leaves_its_run(
    queue: Queue, start_keeper: Callable[..., subprocess.Popen[str]]
) -> None:
    queue.add(["fake", "--steps", "100000", "--pause", "0.01"], name="a")
    keeper = start_keeper()
    wait_for(lambda: states(queue)["a"] == RUNNING)
    keeper.terminate()
    assert keeper.wait(10) == 0
    wait_for(lambda: read_status(queue.root / "a").active)
    assert not list(queue.folder.glob("keeper-*.json"))


def test_devices_are_the_visible_cards_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert find_devices() == ["cuda:0", "cuda:1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_devices() == ["cpu"]


def test_sweep_is_a_grid_of_named_runs_in_a_group(queue: Queue, here: Here) -> None:
    grid = ["sweep", "gpt2ish", "--set", "train.lr=1e-4,3e-4", "--set", "model.num_blocks=2", "--seeds", "2"]
    answer = here(*grid, "--group", "lrs", "--no-check", "--plan", "quickstart")
    assert answer.status == 0, answer.errors
    entries = queue.entries()
    assert [entry.run for entry in entries] == ["lrs-lr1e-4-s0", "lrs-lr1e-4-s1", "lrs-lr3e-4-s0", "lrs-lr3e-4-s1"]
    assert {entry.group for entry in entries} == {"lrs"}
    assert entries[3].arguments == (
        ["gpt2ish", "--plan", "quickstart", "--set", "train.lr=3e-4", "--set", "model.num_blocks=2", "--seed", "1"]
    )
    listed = json.loads(here("queue", "list", "--json").output)
    assert [entry["run"] for entry in listed["entries"]] == [entry.run for entry in entries]
    assert here(*grid, "--seed", "3").status == 2
    assert "lrr" in here("queue", "add", "test_runner", "--plan", "quickstart", "--set", "train.lrr=1").errors
    assert len(queue.entries()) == 4
