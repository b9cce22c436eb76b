"""The chat: its turns and commands with an engine that only pretends, then for real in a pipe and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from lmplay.cli.chat import fitted, without_echo, wrapped
from lmplay.generate.chat import Chat, Quit
from lmplay.generate.client import EngineDiedError, EngineRefusedError
from lmplay.generate.config import SamplingConfig
from lmplay.generate.template import Template
from lmplay.utils import get_tokenizer
from lmplay.utils.errors import LMPlayError, WrongUsageError


class PretendedEngine:
    """Answers a message with its seed, and remembers what it was asked."""

    def __init__(self, checkpoint: str = "run", **options: Any) -> None:
        self.checkpoint, self.options = checkpoint, options
        self.facts: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self.starts: list[str | None] = []
        self.dies = self.killed = self.cancelled = False
        self.slides = 0
        self.step = 10

    def start(self, checkpoint: str | None = None) -> None:
        self.starts.append(checkpoint)

    def wait_until_ready(self) -> dict[str, Any]:
        name = f"{self.checkpoint}/checkpoints/{self.step}"
        self.facts = {"checkpoint": name, "experiment": self.checkpoint, "step": self.step, "max_len": 64}
        self.facts |= {"tokenizer": "gpt2", "weights": "float32", "cache_bytes": 1000, "end_of_text": 50256}
        return self.facts

    reload = wait_until_ready

    def generate(self, *, poll: Callable[[], None], **request: Any) -> Iterator[dict[str, Any]]:
        self.requests.append(request)
        poll()
        text = f" answer {request['settings']['seed']}"
        yield {"event": "text", "text": text[:4]}
        if self.dies or self.killed:
            self.dies = False
            raise EngineDiedError("the engine was killed by SIGKILL")
        yield {"event": "text", "text": text[4:]}
        yield {
            "event": "done",
            "text": text,
            "tokens": get_tokenizer().encode_ordinary(text),
            "prompt_tokens": get_tokenizer().encode_ordinary("".join(request["prompt"])),
            "stopped_by": "cancelled" if self.cancelled else "max_tokens",
            "tokens_per_second": 38.0,
            "time_to_first_token": 0.125,
            "slides": self.slides,
            "cache_bytes": 2_000_000,
            "held_tokens": 7,
            "probabilities": [{"token": 1, "text": " a", "probability": 0.5, "alternatives": []}]
            if request["probabilities"] is not None
            else [],
        }

    def cancel(self) -> None:
        self.cancelled = True

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        pass


class RecordingScreen:
    def __init__(self) -> None:
        self.written = ""
        self.lines: list[str] = []
        self.columns: list[tuple[str, str]] = []

    def write(self, text: str) -> None:
        self.written += text

    def say(self, line: str) -> None:
        self.lines.append(line)

    def side_by_side(self, titles: Sequence[str], answers: Sequence[Callable[[Callable[[str], None]], None]]) -> None:
        for title, answer in zip(titles, answers, strict=True):
            parts: list[str] = []
            answer(parts.append)
            self.columns.append((title, "".join(parts)))


@pytest.fixture
def screen() -> RecordingScreen:
    return RecordingScreen()


@pytest.fixture
def chat(screen: RecordingScreen) -> Chat:
    made = Chat(PretendedEngine(), screen, SamplingConfig(seed=5))  # type: ignore[arg-type]
    made.start()
    return made


def asked(chat: Chat) -> list[dict[str, Any]]:
    return chat.speaker.engine.requests  # type: ignore[attr-defined]


def test_a_turn_goes_on_from_the_tokens_of_those_before(chat: Chat, screen: RecordingScreen) -> None:
    chat.enter("Hello")
    chat.enter("//not a command")
    assert screen.written == " answer 5 answer 6"
    first, second = asked(chat)
    assert (first["context"], first["prompt"]) == ([], ("Hello",))
    assert get_tokenizer().decode(second["context"]) == "Hello answer 5"
    assert second["prompt"] == ("\n/not a command",)


def test_the_template_marks_what_was_typed(screen: RecordingScreen) -> None:
    chat = Chat(PretendedEngine(), screen, SamplingConfig(), template=Template(("Q: {}\nA:",)))  # type: ignore[arg-type]
    chat.start()
    chat.enter("Why?")
    chat.enter("How?")
    assert [request["prompt"] for request in asked(chat)] == [("Q: Why?\nA:",), ("\nQ: How?\nA:",)]


def test_a_template_of_training_ends_each_answer_with_its_token(screen: RecordingScreen) -> None:
    chat = Chat(PretendedEngine(), screen, SamplingConfig(), template=Template(("Q: {} A:",), ended=True))  # type: ignore[arg-type]
    chat.start()
    chat.enter("Why?")
    chat.enter("How? ")
    second = asked(chat)[1]
    assert (get_tokenizer().decode(second["context"]), second["prompt"]) == (
        "Q: Why? A: answer 0<|endoftext|>",
        ("Q: How? A:",),
    )


def test_retry_asks_the_same_with_another_seed_and_undo_takes_a_turn_back(chat: Chat, screen: RecordingScreen) -> None:
    chat.enter("Hello")
    chat.enter("/retry")
    assert [(request["prompt"], request["settings"]["seed"]) for request in asked(chat)] == [
        (("Hello",), 5),
        (("Hello",), 6),
    ]
    assert asked(chat)[1]["context"] == []
    chat.enter("/undo")
    assert screen.lines == ["taken back: 'Hello'; 0 turns left"]
    with pytest.raises(WrongUsageError, match="no turn"):
        chat.enter("/undo")


def test_settings_change_on_the_fly(chat: Chat) -> None:
    for line in ("/temp 0.25", "/top_k 7", "/seed 40", "/stop \\n\\n|END"):
        chat.enter(line)
    chat.enter("Hello")
    settings = asked(chat)[0]["settings"]
    assert (settings["temperature"], settings["top_k"], settings["seed"]) == (0.25, 7, 40)
    assert settings["stop"] == ("\n\n", "END")
    chat.enter("/stop off")
    assert chat.settings.stop == ()
    for line, message in (("/temp x", "temperature"), ("/tepm 1", "did you mean temp"), ("/top_p 2", "top_p")):
        with pytest.raises(WrongUsageError, match=message):
            chat.enter(line)
    assert chat.settings.temperature == 0.25


def test_the_footer_has_the_speed_the_cache_and_the_settings(chat: Chat) -> None:
    chat.enter("Hello")
    assert chat.footer() == (
        "run @10 · float32 · 38.0 tok/s · first 0.12 s · cache 2.0 MB · 7/64 tokens · temp 0.8 top_k 50 seed 6"
    )


def test_the_footer_is_whole_at_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    footer = "run @10 · float32 · 38.0 tok/s · first 0.12 s · cache 2.0 MB · 7/1024 tokens · temp 0.8 top_k 50 seed 6"
    monkeypatch.setenv("COLUMNS", "80")
    shown = fitted(footer)
    assert [len(line) <= 80 for line in shown.split("\n")] == [True, True]
    assert shown.replace("\n", " · ") == footer
    monkeypatch.setenv("COLUMNS", "200")
    assert fitted(footer) == footer


def test_a_dead_engine_is_replaced_and_the_message_can_be_sent_again(chat: Chat, screen: RecordingScreen) -> None:
    chat.enter("One")
    engine = chat.speaker.engine
    engine.dies, engine.step = True, 20  # type: ignore[attr-defined]
    chat.enter("Two")
    assert screen.lines[0] == "the engine was killed by SIGKILL; starting it again"
    # The same checkpoint, although the run has a newer one.
    assert engine.starts == [None, "run/checkpoints/10"]  # type: ignore[attr-defined]
    chat.enter("/retry")
    assert asked(chat)[-1]["prompt"] == ("\nTwo",)
    assert [turn.text for turn in chat.speaker.conversation.turns] == ["One", "Two"]


def test_ctrl_c_cancels_the_answer_and_a_second_one_ends_the_engine(screen: RecordingScreen) -> None:
    for times in (1, 2):
        chat = Chat(PretendedEngine(), screen, SamplingConfig(), interrupted=lambda times=times: times)  # type: ignore[arg-type]
        chat.start()
        chat.enter("Hello")
        engine: Any = chat.speaker.engine
        assert (engine.cancelled, engine.killed) == (times == 1, times == 2)
    assert screen.lines[0] == "stopped"
    assert "killed" in screen.lines[1]


def test_reset_begins_anew_and_a_slide_is_told_once(chat: Chat, screen: RecordingScreen) -> None:
    chat.speaker.engine.slides = 1  # type: ignore[attr-defined]
    chat.enter("Hello")
    chat.enter("Again")
    assert sum("longer than the model's 64 tokens" in line for line in screen.lines) == 1
    chat.enter("/reset")
    chat.enter("Hello")
    assert asked(chat)[-1]["context"] == []


def test_probabilities_are_shown_when_asked_for(chat: Chat, screen: RecordingScreen) -> None:
    chat.enter("/probs 2")
    chat.enter("Hello")
    assert asked(chat)[0]["probabilities"] == 2
    assert screen.lines[-1].split() == ["50.0%", "'", "a'"]
    chat.enter("/probs off")
    chat.enter("Hello")
    assert asked(chat)[1]["probabilities"] is None


def test_save_writes_all_of_it_or_the_bare_text_and_overwrites_nothing(chat: Chat, tmp_path: Path) -> None:
    chat.enter("Hello")
    chat.enter(f"/save {tmp_path / 'chat.json'}")
    chat.enter(f"/save {tmp_path / 'chat.txt'}")
    saved = json.loads((tmp_path / "chat.json").read_text())
    assert saved["turns"][0]["answer"] == " answer 5"
    assert saved["settings"]["top_k"] == 50
    assert (tmp_path / "chat.txt").read_text() == "Hello answer 5\n"
    with pytest.raises(WrongUsageError, match="exists"):
        chat.enter(f"/save {tmp_path / 'chat.txt'}")


def test_reload_takes_the_newest_checkpoint(chat: Chat, screen: RecordingScreen) -> None:
    chat.enter("/reload")
    chat.speaker.engine.step = 20  # type: ignore[attr-defined]
    chat.enter("/reload")
    assert screen.lines == ["now run @10 (no newer one yet)", "now run @20"]


def test_another_model_answers_beside_this_one(
    chat: Chat, screen: RecordingScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmplay.generate.chat.Engine", PretendedEngine)
    chat.enter("Hello")
    chat.enter("/compare other")
    chat.enter("Both")
    assert screen.columns == [("run @10", " answer 6"), ("other @10", " answer 6")]
    assert chat.other is not None
    assert [turn.text for turn in chat.other.conversation.turns] == ["Hello", "Both"]
    chat.enter("/undo")
    chat.enter("/compare off")
    chat.enter("Alone")
    assert len(screen.columns) == 2


def test_a_model_that_cannot_be_loaded_leaves_the_chat_as_it_was(
    chat: Chat, screen: RecordingScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(PretendedEngine):
        def wait_until_ready(self) -> dict[str, Any]:
            raise EngineRefusedError("there is no run 'nope'")

    monkeypatch.setattr("lmplay.generate.chat.Engine", Refusing)
    with pytest.raises(LMPlayError, match="nope"):
        chat.enter("/compare nope")
    chat.enter("Hello")
    assert screen.written == " answer 5"


def test_quit_and_help(chat: Chat, screen: RecordingScreen) -> None:
    chat.enter("/help")
    assert any("/compare RUN|off" in line for line in screen.lines)
    assert any("/temperature" in line for line in screen.lines)
    for line in ("/quit", "/exit"):
        with pytest.raises(Quit):
            chat.enter(line)


def test_a_piped_chat_answers_each_line(lmplay: Callable[..., Any], checkpoint: Path, tmp_path: Path) -> None:
    lines = f"Hello\n/temp 9e9e9\nMore\n/save {tmp_path / 'saved.json'}\n"
    done = lmplay("chat", str(checkpoint), "--max-tokens", "5", "--device", "cpu", input=lines)
    assert done.returncode == 0, done.stderr
    turns = json.loads((tmp_path / "saved.json").read_text())["turns"]
    assert done.stdout.replace("\n", "") == "".join(turn["answer"] for turn in turns).replace("\n", "")
    assert [turn["text"] for turn in turns] == ["Hello", "More"]
    assert "error: temperature" in done.stderr
    missing = lmplay("chat", "no-such-run")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


def test_remarks_are_broken_between_words_and_keep_their_own_indent() -> None:
    assert wrapped("  /stop X    End the text here.", 20) == "  /stop X    End the\ntext here."
    assert wrapped("tokens of context in a cache", 20) == "tokens of context in\na cache"
    assert wrapped("", 20) == ""


class Terminal:
    """A real pseudo-terminal with `lmplay chat` in it."""

    def __init__(self, *arguments: str) -> None:
        pid, self.descriptor = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, "-m", "lmplay", "chat", *arguments])
        self.pid, self.seen = pid, ""

    def type(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self.descriptor, data[:512]) :]
            self._read(0.01)

    def wait_for(self, pattern: str, seconds: float = 90) -> str:
        """What was shown until the pattern came; then it is forgotten."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} never came; the screen had {self.seen[-2000:]!r}"
            self._read(0.1)
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def _read(self, seconds: float) -> None:
        if select.select([self.descriptor], [], [], seconds)[0]:
            part = os.read(self.descriptor, 65536).decode("utf-8", errors="replace")
            # prompt_toolkit asks where the cursor is, as it would ask a person's terminal.
            if "\x1b[6n" in part:
                os.write(self.descriptor, b"\x1b[1;1R")
            self.seen += part


@pytest.mark.slow
def test_a_terminal_chat_survives_a_long_paste_ctrl_c_and_a_killed_engine(checkpoint: Path, tmp_path: Path) -> None:
    pasted = "\n".join(f"line {number:04} of what was pasted" for number in range(170))[:5000]
    terminal = Terminal(str(checkpoint), "--max-tokens", "3", "--device", "cpu")
    try:
        terminal.wait_for("ctrl\\+d leaves")
        terminal.type(f"\x1b[200~{pasted}\x1b[201~\r")
        terminal.wait_for("longer than the model's 64 tokens")
        terminal.type(f"/save {tmp_path / 'pasted.json'}\r")
        terminal.wait_for("saved 1 turn in")
        assert json.loads((tmp_path / "pasted.json").read_text())["turns"][0]["text"] == pasted

        terminal.type("/max_tokens 1000000\r")
        terminal.wait_for("max_tokens = 1000000")
        terminal.type("on and on\r")
        terminal.wait_for(r"(?s)on and on.*\n.{2000}")  # the answer is under way
        terminal.type("\x03")
        terminal.wait_for("stopped")

        terminal.type("/max_tokens 3\r")
        terminal.wait_for("max_tokens = 3")
        (engine,) = psutil.Process(terminal.pid).children()
        engine.send_signal(signal.SIGKILL)
        terminal.type("are you there?\r")
        terminal.wait_for("killed by SIGKILL; starting it again")
        terminal.wait_for("/retry asks again")
        terminal.type("/retry\r")
        terminal.wait_for("tok/s")
        terminal.type("\x04")
        _, status = os.waitpid(terminal.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert not psutil.pid_exists(engine.pid)
    finally:
        os.close(terminal.descriptor)
        if psutil.pid_exists(terminal.pid):
            os.kill(terminal.pid, signal.SIGKILL)


def test_what_is_typed_ahead_of_the_prompt_is_not_echoed_into_the_answer() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as terminal:
        with without_echo(terminal):
            os.write(ours, b"/undo\n")
            assert not select.select([ours], [], [], 0.2)[0]
        assert terminal.readline() == "/undo\n"
        os.write(ours, b"seen")
        assert select.select([ours], [], [], 5)[0]
    os.close(ours)
