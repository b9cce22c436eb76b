"""The engine as a real process, spoken to over its pipes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmplay.base.base_model import LMBase
from lmplay.generate import SamplingConfig, generate
from lmplay.generate.client import Engine, EngineDiedError, EngineRefusedError
from lmplay.generate.server import Server
from tests.warm import client as warm


@pytest.fixture(scope="module", autouse=True)
def _engines_that_start_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", warm.WarmPopen)
        yield


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[Engine]:
    started = Engine(str(checkpoint), device="cpu")
    started.start()
    started.wait_until_ready()
    yield started
    started.close()


def done(engine: Engine, **request: object) -> dict[str, object]:
    *_, last = engine.generate(**request)
    return last


def test_many_requests_one_after_another_and_the_cache_between_them(engine: Engine, model: LMBase) -> None:
    settings = {"temperature": 0, "max_tokens": 8}
    first = done(engine, prompt="Once upon a time", settings=settings)
    expected = generate(model, ["Once upon a time"], SamplingConfig(**settings))[0]
    assert first["tokens"] == expected.tokens
    context = [*first["prompt_tokens"], *first["tokens"]]
    second = done(engine, context=context, prompt=" and then", settings=settings)
    assert second["reused_tokens"] == len(context) - 1
    assert second["prompt_tokens"] == model.tokenizer.encode_ordinary(" and then")
    assert second["cache_bytes"] == engine.facts["cache_bytes"] == 2 * 2 * 64 * 64 * 4  # layers, K and V, positions


def test_the_streamed_parts_are_the_text(engine: Engine) -> None:
    *parts, last = engine.generate(prompt="A", settings={"max_tokens": 20, "temperature": 1.5, "top_k": 0})
    assert "".join(part["text"] for part in parts) == last["text"]


def test_the_parts_of_a_prompt_are_encoded_apart(engine: Engine, model: LMBase) -> None:
    encode = model.tokenizer.encode_ordinary
    last = done(engine, prompt=["A?\n\n", "B:"], settings={"max_tokens": 1})
    assert last["prompt_tokens"] == [*encode("A?\n\n"), *encode("B:")] != encode("A?\n\nB:")
    assert last["prompt"] == "A?\n\nB:"


def test_cancel_ends_the_answer_and_the_next_request_is_served(engine: Engine) -> None:
    events = engine.generate(prompt="A", settings={"max_tokens": 100_000, "top_k": 0, "temperature": 1.5})
    next(events)
    engine.cancel()
    *_, last = events
    assert last["stopped_by"] in ("cancelled", "end_of_text")
    assert len(last["tokens"]) < 100_000
    assert done(engine, prompt="B", settings={"max_tokens": 3})["stopped_by"] == "max_tokens"


def test_a_request_that_fails_is_told_and_the_next_is_served(engine: Engine) -> None:
    for request, message in (
        ({"context": [60_000]}, "60000 is no token"),
        ({"settings": {"temperature": -1}}, "temperature"),
        ({"settings": {"topp": 1}}, "topp"),
    ):
        with pytest.raises(EngineRefusedError, match=message):
            done(engine, prompt="A", **request)
    assert done(engine, prompt="B", settings={"max_tokens": 3})["event"] == "done"


def test_no_line_ends_the_process_that_reads_it() -> None:
    lines = ["[" * 200_000, "7", '{"op": "cancel", "id": [1]}', '{"op": "info", "id": {}}', '{"op": ["info"]}']
    lines += ['{"op": "\\ud800", "id": "half a pair"}', '{"op": "cancel", "id": 9}', '{"op": "info", "id": 9}']
    answers = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    server = Server(io.StringIO("\n".join(lines)), answers)
    server.serve()
    answers.seek(0)
    replies = [json.loads(line) for line in answers]
    assert [reply["event"] for reply in replies] == ["error"] * 7
    assert {reply["id"] for reply in replies} == {None, "half a pair", 9}
    assert server._cancelled == set()  # a later request with the id 9 is served


def test_a_killed_engine_is_told_and_a_new_one_goes_on(engine: Engine) -> None:
    events = engine.generate(prompt="A", settings={"max_tokens": 100_000, "top_k": 0, "temperature": 1.5})
    next(events)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineDiedError, match="SIGKILL"):
        list(events)
    with pytest.raises(EngineDiedError, match="SIGKILL"):
        done(engine, prompt="A")
    engine.start()
    assert engine.wait_until_ready()["max_len"] == 64
    assert done(engine, prompt="B", settings={"max_tokens": 3})["event"] == "done"


def test_a_file_of_requests_can_be_piped_through(checkpoint: Path) -> None:
    lines = [
        "this is no JSON",
        json.dumps({"op": "dance", "id": "a"}),
        json.dumps({"op": "generate", "id": "b", "prompt": "日本", "settings": {"max_tokens": 2}}),
        json.dumps({"op": "info", "id": "c"}),
    ]
    command = ["-m", "lmplay.generate.server", str(checkpoint), "--device", "cpu"]
    finished = warm.run(command, input="\n".join(lines))
    assert finished.returncode == 0, finished.stderr
    events = [json.loads(line) for line in finished.stdout.splitlines()]
    by_id = {(event["id"], event["event"]): event for event in events}
    assert by_id[None, "error"]["message"].startswith("this line is no JSON")
    assert by_id["a", "error"]["message"] == "'dance' is no op; use load, generate, info, cancel or quit"
    assert by_id["b", "done"]["prompt"] == "日本"
    assert by_id["c", "ready"]["experiment"] == "test_runner"


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path / "nothing"))
    engine.start()
    with pytest.raises(EngineRefusedError, match="nothing"):
        engine.wait_until_ready()
    engine.close()
