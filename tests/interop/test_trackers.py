"""Trackers are told what the run directory holds, go on after failures, and never touch the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lmplay.interop.trackers import bridge as bridge_module
from lmplay.interop.trackers import check_trackers
from lmplay.interop.trackers.bridge import Bridge
from lmplay.runs import RunWriter, create_run
from lmplay.utils.errors import WrongUsageError


class Recorder:
    """A tracker that keeps what it is told; the first `failures` calls fail."""

    def __init__(self, failures: int = 0) -> None:
        self.told: list[Any] = []
        self.failures = failures

    def log(self, values: Mapping[str, float], *, step: int, time: float) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("the dashboard is down")
        assert time > 0
        self.told.append((step, dict(values)))

    def text(self, name: str, text: str, *, step: int, time: float) -> None:
        assert time > 0
        self.told.append((step, name, text))

    def rewind(self, step: int) -> None:
        self.told.append(("back to", step))

    def flush(self) -> None:
        self.flushed = len(self.told)

    def finish(self, *, failed: bool) -> None:
        self.told.append("failed" if failed else "finished")


@pytest.fixture
def run(runs_folder: Path) -> Path:
    path = create_run("fake", name="one", root=runs_folder)
    (path / "trackers").mkdir()
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "POLL_SECONDS", 0.01)


def use(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setattr(bridge_module, "open_tracker", lambda *_: recorder)


def rows(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {"kind": "train", "stage": "a", "step": step, "samples": step * 8, "loss": 9.0 - step}
        for step in range(first, last + 1)
    ]


def test_every_row_is_told_once_in_order_with_the_way_back_at_its_place(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    use(monkeypatch, recorder)
    with RunWriter(run) as writer:
        writer.metrics(*rows(1, 4), {"kind": "validate", "step": 4, "loss": 2.0, "accuracy": float("nan")})
        writer.resumed(2)
        writer.metrics(*rows(3, 3))
        writer.event("validated", sample="Once", step=3)
        writer.system({"process_memory": 100, "gpus": [{"index": 0, "use": 50}]})
        writer.status(state="done")
    assert Bridge(run, "wandb").follow() == 0
    steps = [told[0] for told in recorder.told if isinstance(told, tuple)]
    assert steps == [1, 2, 3, 4, 4, "back to", 3, 3, 3]
    assert recorder.told[0] == (1, {"train/loss": 8.0, "progress/samples": 8.0})
    assert recorder.told[4] == (4, {"validation/loss": 2.0})
    assert recorder.told[-3:] == [
        (3, "sample", "Once"),
        (3, {"system/process_memory": 100.0, "system/gpu0/use": 50.0}),
        "finished",
    ]


def test_bridge_that_was_killed_goes_on_where_it_was(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    use(monkeypatch, recorder)
    with RunWriter(run) as writer:
        writer.metrics(*rows(1, 3))
        Bridge(run, "wandb")._tell()
        assert recorder.flushed == 3, "what the bridge will not tell again has to be safe"
        writer.metrics(*rows(4, 5))
        writer.status(state="failed", error="no")
    Bridge(run, "wandb").follow()
    assert [told[0] for told in recorder.told[:-1]] == [1, 2, 3, 4, 5]
    assert recorder.told[-1] == "failed"


def test_tracker_that_fails_is_tried_again_and_the_run_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(failures=3)
    use(monkeypatch, recorder)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with RunWriter(run) as writer:
        thread = threading.Thread(target=lambda: Bridge(run, "wandb").follow())
        writer.metrics(*rows(1, 2))
        thread.start()
        writer.metrics(*rows(3, 6))
        writer.status(state="done")
    thread.join(20)
    assert [told[0] for told in recorder.told[:-1]] == [1, 2, 3, 4, 5, 6]
    assert len([pause for pause in pauses if pause > 0.01]) == 3


def test_tracker_that_never_answers_is_given_up(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Recorder(failures=10**6))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with RunWriter(run) as writer:
        writer.metrics(*rows(1, 2))
        writer.status(state="done")
    before = (run / "status.json").read_bytes()
    assert Bridge(run, "wandb").follow() == 1
    assert (run / "status.json").read_bytes() == before
    assert not (run / "trackers" / "wandb.json").exists()


def test_unknown_and_missing_trackers_are_refused_before_a_run_is_made() -> None:
    with pytest.raises(WrongUsageError, match="did you mean tensorboard"):
        check_trackers(["tensorbord"])
    try:
        import wandb  # noqa: F401
    except ImportError:
        with pytest.raises(WrongUsageError, match="pip install wandb"):
            check_trackers(["wandb"])


FAKES = {
    "wandb": """
import json, os
class Run:
    def __init__(self, **asked): self.put("init", asked["id"], asked["resume"], asked["config"]["seed"])
    def put(self, *what): open(os.environ["TOLD"], "a").write(json.dumps(what) + "\\n")
    def define_metric(self, *what, **how): self.put("define", *what)
    def log(self, values): self.put("log", {key: str(value) for key, value in values.items() if key != "clock"})
    def finish(self, exit_code): self.put("finish", exit_code)
def init(**asked): return Run(**asked)
class Html:
    def __init__(self, text): self.text = text
    def __str__(self): return self.text
""",
    "trackio": """
import json, os
class Run:
    def __init__(self, **asked): self.put("init", asked["name"], asked["resume"], asked["config"]["seed"])
    def put(self, *what): open(os.environ["TOLD"], "a").write(json.dumps(what) + "\\n")
    def log(self, values, step):
        self.put("log", {"step": str(step), **{key: str(value) for key, value in values.items() if key != "clock"}})
    def finish(self): self.put("finish", 0)
def init(**asked): return Run(**asked)
""",
}


@pytest.mark.parametrize("name", FAKES)
def test_bridge_process_speaks_the_trackers_own_interface(run: Path, tmp_path: Path, name: str) -> None:
    """With stand-ins of the packages that record their calls: a process as `lmplay run --track` starts it."""
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes" / f"{name}.py").write_text(FAKES[name])
    with RunWriter(run) as writer:
        writer.metrics(*rows(1, 2))
        writer.event("validated", sample="a < b", step=2)
        writer.status(state="done")
    environment = {
        **os.environ,
        "TOLD": str(tmp_path / "told"),
        "PYTHONPATH": f"{tmp_path / 'fakes'}:{os.environ['PYTHONPATH']}",
    }
    command = [sys.executable, "-m", "lmplay.interop.trackers.bridge", str(run), name]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert told[0] == ["init", "one", "allow", None]
    logged = [values for kind, values in ((entry[0], entry[-1]) for entry in told) if kind == "log"]
    assert [(values["step"], values["train/loss"]) for values in logged[:2]] == [("1", "8.0"), ("2", "7.0")]
    assert "a &lt; b" in logged[2]["sample"] if name == "wandb" else logged[2]["sample"] == "a < b"
    assert told[-1] == ["finish", 0]


def test_tensorboard_reads_back_what_was_logged(run: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is optional and not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunWriter(run) as writer:
        writer.metrics(*rows(1, 4))
        writer.resumed(2)
        writer.metrics(*rows(3, 3))
        writer.event("validated", sample="Once", step=3)
        writer.status(state="done")
    assert Bridge(run, "tensorboard").follow() == 0
    read = EventAccumulator(str(run / "trackers" / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("train/loss")] == [(1, 8.0), (2, 7.0), (3, 6.0)]
    assert b"Once" in read.Tensors("sample")[0].tensor_proto.string_val[0]
