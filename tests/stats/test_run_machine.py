"""Writer, readers, crashes and resumes in any order: hypothesis drives them against a model of what must be seen."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lmplay.runs import JsonlTail, RunBusyError, RunFollower, RunWriter, create_run, read_status
from lmplay.stats import history as history_module
from lmplay.stats.history import History

GONE = 2**22 + 7  # above the largest pid


class RunMachine(RuleBasedStateMachine):
    """What a reader must see: `train` and `validate` rows that still hold, as (step, serial number)."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.run = create_run("fake", name="one", root=self.folder)
        self.block_bytes, history_module._BLOCK_BYTES = history_module._BLOCK_BYTES, 600
        self.writer: RunWriter | None = None
        self.step = self.saved = self.serial = 0
        self.train: list[tuple[int, int]] = []
        self.validate: list[tuple[int, int]] = []
        self.whole_rows = 0
        self.tail, self.tailed = JsonlTail(self.run / "metrics.jsonl"), 0
        self.history: History | None = None
        self.ended = "queued"

    @precondition(lambda self: self.writer is None)
    @rule()
    def start(self) -> None:
        first = self.ended == "queued"
        self.writer = RunWriter(self.run).__enter__()
        if not first:
            self.step = self.saved
            self.writer.resumed(self.step)
            self.train = [row for row in self.train if row[0] <= self.step]
            self.validate = [row for row in self.validate if row[0] <= self.step]
        self.writer.status(state="running")

    @precondition(lambda self: self.writer is not None)
    @rule(count=st.integers(1, 9), at_once=st.booleans())
    def learn(self, count: int, at_once: bool) -> None:
        rows = []
        for _ in range(count):
            self.step, self.serial = self.step + 1, self.serial + 1
            rows.append({"kind": "train", "step": self.step, "tokens": self.step * 64, "loss": self.serial})
            self.train.append((self.step, self.serial))
        for group in [rows] if at_once else [[row] for row in rows]:
            self.writer.metrics(*group)
        self.whole_rows += count

    @precondition(lambda self: self.writer is not None and self.step > 0)
    @rule()
    def look(self) -> None:
        self.serial += 1
        self.writer.metrics({"kind": "validate", "step": self.step, "loss": self.serial})
        self.validate.append((self.step, self.serial))
        self.whole_rows += 1

    @precondition(lambda self: self.writer is not None)
    @rule()
    def save(self) -> None:
        self.saved = self.step
        self.writer.event("saved", checkpoint=str(self.step))

    @precondition(lambda self: self.writer is not None)
    @rule()
    def second_writer_is_refused(self) -> None:
        try:
            RunWriter(self.run).__enter__()
        except RunBusyError:
            return
        raise AssertionError("two writers")

    @precondition(lambda self: self.writer is not None)
    @rule(
        torn=st.sampled_from([b"", b'{"kind": "train", "step": 3, "lo', b"\0\0\0", b'{"kind": "train", "step": 9999}'])
    )
    def crash(self, torn: bytes) -> None:
        """As SIGKILL leaves it: the lock gone, the state as it was, the last write cut short anywhere."""
        assert self.writer is not None
        with (self.run / "metrics.jsonl").open("ab") as file:
            file.write(torn)
        for appender in (self.writer._metrics, self.writer._events, self.writer._system):
            appender.close()
        self.writer._lock.release()
        fields = json.loads((self.run / "status.json").read_text())
        (self.run / "status.json").write_text(json.dumps({**fields, "pid": GONE}))
        self.writer, self.ended = None, "lost"
        # A line that looks whole but lacks its end becomes a row when the next writer ends it: a step too far, hidden
        # by the resume that follows.
        self.torn_row = torn.endswith(b"}")
        self.whole_rows += self.torn_row

    @precondition(lambda self: self.writer is not None)
    @rule(state=st.sampled_from(["done", "stopped"]))
    def end(self, state: str) -> None:
        assert self.writer is not None
        self.saved = self.step
        self.writer.status(state=state)
        self.writer.__exit__(None, None, None)
        self.writer, self.ended = None, state

    @rule()
    def read_on(self) -> None:
        self.tailed += len(self.tail.read())

    @rule(anew=st.booleans())
    def open_history(self, anew: bool) -> None:
        if anew or self.history is None:
            self.history = History(self.run)
        else:
            self.history.refresh()
        for rows, expected in ((self.history.train, self.train), (self.history.validate, self.validate)):
            found = list(zip(rows.column("step"), rows.column("loss"), strict=True))
            assert found == expected

    @invariant()
    def status_is_true(self) -> None:
        expected = "running" if self.writer is not None else self.ended
        assert read_status(self.run).state == expected

    @invariant()
    def follower_from_the_end_sees_nothing_old(self) -> None:
        assert RunFollower(self.run, recent_bytes=0).poll().metrics == []

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        if self.writer is None and self.ended == "lost":
            self.start()  # ends a torn line
        self.read_on()
        assert self.tailed == self.whole_rows
        self.open_history(True)
        if self.writer is not None:
            self.writer.__exit__(None, None, None)
        history_module._BLOCK_BYTES = self.block_bytes
        shutil.rmtree(self.folder)


RunMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestRunMachine = RunMachine.TestCase
