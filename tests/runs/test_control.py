"""Steering: what is asked reaches the worker within two steps; what is no request does nothing but leave an event."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lmplay.runs import ControlInbox, JsonlTail, Run, RunWriter, read_status, request
from lmplay.runs.control import LARGEST_REQUEST
from lmplay.utils.errors import LMPlayError, WrongUsageError

from .conftest import Here, StartWorker, wait_for

LMPlay = Callable[..., subprocess.CompletedProcess[str]]


def events_of(run: Path, kind: str) -> list[dict[str, object]]:
    return [row for row in JsonlTail(run / "events.jsonl").read() if row["event"] == kind]


def test_ctl_from_another_process_is_accepted_within_two_steps(
    run: Path, start_worker: StartWorker, lmplay: LMPlay, here: Here
) -> None:
    start_worker(run, "--steps", "100000", "--pause", "0.1")
    wait_for(lambda: read_status(run).state == "running")
    answer = lmplay("ctl", "one", "set", "train.lr=0.0005")
    assert answer.returncode == 0
    assert [line.split()[1] for line in answer.stdout.splitlines()] == ["set", "accepted", "done"]
    asked, accepted = events_of(run, "requested")[0], events_of(run, "accepted")[0]
    # Steps are 0.1 s apart: the one going on when the file appeared, and the boundary after it.
    begun = [row for row in JsonlTail(run / "metrics.jsonl").read() if row["step"] <= accepted["step"]]  # type: ignore[operator]
    assert float(accepted["clock"]) - float(asked["asked"]) < 0.25  # type: ignore[arg-type]
    assert begun
    wait_for(lambda: read_status(run).fields["lr"] == 0.0005)
    refused = here("ctl", "one", "set", "train.width=3", "--json")
    assert refused.status == 1
    assert json.loads(refused.output)["outcome"] == "refused"


def test_ctl_kill_asks_or_needs_yes_and_the_status_says_so(run: Path, start_worker: StartWorker, here: Here) -> None:
    start_worker(run, "--steps", "100000", "--pause", "0.01", "--save-every", "1000000")
    wait_for(lambda: read_status(run).state == "running")
    assert here("ctl", "one", "kill").status == 2
    assert read_status(run).active
    assert here("ctl", "one", "kill", "--yes").status == 0
    status = read_status(run)
    assert (status.state, status.reason) == ("stopped", "killed without saving")
    assert here("ctl", "one", "pause").status == 1
    assert "did you mean pause" in here("ctl", "one", "pauze").errors


def test_library_steers_and_follows(run: Path, start_worker: StartWorker) -> None:
    opened = Run.open("one")
    with pytest.raises(LMPlayError, match="nobody to stop"):
        opened.control("stop")
    start_worker(run, "--steps", "100000", "--pause", "0.01")
    wait_for(lambda: read_status(run).state == "running")
    assert opened.control("set", {"train.lr": 5e-4})["event"] == "done"
    assert opened.control("set", {"train.width": 1})["reason"] == "only train.lr can be set"
    assert opened.control("pause")["event"] == "done"
    assert opened.status.state == "paused"
    opened.control("resume")
    assert opened.control("stop", wait=False)["event"] == "requested"
    updates = list(opened.follow(interval=0.02, from_start=True))
    assert updates[-1].status.state == "stopped"
    steps = [row["step"] for update in updates for row in update.metrics if row["kind"] == "train"]
    assert steps == list(range(1, opened.status.step + 1))
    assert opened.checkpoint().name == str(opened.status.step)


def test_wait_ends_when_the_worker_does(run: Path, start_worker: StartWorker) -> None:
    pid = start_worker(run, "--steps", "100000", "--pause", "1")
    wait_for(lambda: read_status(run).state == "running")
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(LMPlayError, match=r"no answer from one for 0.2 s"):
        Run(run).control("pause", timeout=0.2)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(LMPlayError, match="nobody"):
        Run(run).control("pause")


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_REQUEST + 1)


GOOD = "1700000000000000000-0123abcd.json"
TEXTS = {
    "not json": "stop!",
    "empty": "",
    "a list": '["stop"]',
    "deep": "[" * 50_000,
    "unknown action": '{"action": "rm -rf"}',
    "action is no text": '{"action": {"stop": 1}}',
    "arguments are no object": '{"action": "stop", "arguments": "now"}',
    "not utf-8": b"\xff\xfe{}",
    "kill is no request": '{"action": "kill"}',
}


@pytest.mark.parametrize("content", TEXTS, ids=str)
def test_what_is_no_request_does_nothing_but_leave_an_event(run: Path, content: str) -> None:
    with RunWriter(run) as writer:
        inbox = ControlInbox(writer)
        text = TEXTS[content]
        (run / "control" / GOOD).write_bytes(text if isinstance(text, bytes) else text.encode())
        assert inbox.pending() == []
        assert inbox.pending() == []
    rejected = events_of(run, "rejected")
    assert [row["file"] for row in rejected] == [GOOD]
    assert rejected[0]["reason"]
    assert not (run / "control" / GOOD).exists()


@pytest.mark.parametrize(
    "name", ["..%2f..%2fevil.json", "stop.json", "x" * 200, "1-zzzzzzzz.json", " ", "a\nb.json", "..json", "-rf"]
)
def test_odd_names_are_rejected_even_with_a_fitting_content(run: Path, name: str) -> None:
    with RunWriter(run) as writer:
        inbox = ControlInbox(writer)
        (run / "control" / name).write_text('{"action": "stop", "id": "../../x"}')
        assert inbox.pending() == []
    assert [row["reason"] for row in events_of(run, "rejected")] == ["not the name of a request"]


@pytest.mark.parametrize("make", [make_link, make_folder, make_pipe, make_huge], ids=lambda make: make.__name__)
def test_links_folders_pipes_and_huge_files_are_not_read(run: Path, make: Callable[[Path], None]) -> None:
    with RunWriter(run) as writer:
        inbox = ControlInbox(writer)
        make(run / "control" / GOOD)
        assert inbox.pending() == []
        assert inbox.pending() == []
    assert len(events_of(run, "rejected")) == 1
    assert Path("/etc/passwd").exists()


def test_id_comes_from_the_name_of_the_file_and_not_from_its_content(run: Path) -> None:
    victim = run / "run.json"
    with RunWriter(run) as writer:
        inbox = ControlInbox(writer)
        (run / "control" / GOOD).write_text(
            '{"action": "stop", "id": "../run", "arguments": {}, "time": "x", "sender": [1]}'
        )
        (found,) = inbox.pending()
        assert found.id == GOOD.removesuffix(".json")
        inbox.acknowledge(found, "accepted")
        inbox.acknowledge(found, "done")
    assert victim.exists()
    assert not (run / "control" / GOOD).exists()


def test_requests_come_in_the_order_in_which_they_were_made(run: Path) -> None:
    with RunWriter(run) as writer:
        inbox = ControlInbox(writer)
        ids = [request(run, action) for action in ("pause", "resume", "checkpoint")]
        (run / "control" / ".half.tmp").write_text("{")
        assert [found.id for found in inbox.pending()] == ids
        assert inbox.pending() == []


def test_impossible_requests_are_refused_before_they_are_made(run: Path) -> None:
    with pytest.raises(WrongUsageError, match="did you mean pause"):
        request(run, "pausee")
    with pytest.raises(WrongUsageError, match="too long"):
        request(run, "set", note="x" * LARGEST_REQUEST)
    assert not list((run / "control").iterdir())
