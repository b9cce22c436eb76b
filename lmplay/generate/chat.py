"""A chat without its screen: turns, settings and the commands that begin with a slash. Used by `lmplay chat`. No torch.

The model lives in an engine, a process of its own. The turns live here, so when the engine dies, a new one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lmplay.generate.client import Engine, EngineDiedError, EngineRefusedError
from lmplay.generate.config import SamplingConfig, sampling_config
from lmplay.generate.conversation import Conversation, Turn
from lmplay.generate.template import Template, taught_template
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json, write_atomically
from lmplay.utils.names import did_you_mean

ALIASES = {"temp": "temperature", "penalty": "repetition_penalty", "exit": "quit"}
DEFAULT_ALTERNATIVES = 3
SEPARATOR = " · "


class Screen(Protocol):
    """Where a chat shows itself."""

    def write(self, text: str) -> None:
        """A part of an answer, as it comes."""

    def say(self, line: str) -> None:
        """A whole line about the chat, apart from the answers."""

    def side_by_side(self, titles: Sequence[str], answers: Sequence[Callable[[Callable[[str], None]], None]]) -> None:
        """Run all `answers` at once; each calls what it is given with the parts of its text. Raises what they raise."""


@dataclass
class Speaker:
    """One model in the chat, with its own view of the turns."""

    engine: Engine
    template: Template | None = None
    """None takes the one that the checkpoint was trained with."""
    conversation: Conversation = field(default_factory=Conversation)
    last: dict[str, Any] | None = None
    told_of_slide: bool = False

    @property
    def title(self) -> str:
        facts = self.engine.facts
        step = f" @{facts['step']}" if facts.get("step") is not None else ""
        return f"{facts.get('experiment', self.engine.checkpoint)}{step}"

    def start(self, checkpoint: str | None = None) -> None:
        """A new engine with its model; `checkpoint` as in `Engine.start`."""
        self.engine.start(checkpoint)
        self.engine.wait_until_ready()
        self._take_up_template()

    def reload(self) -> None:
        self.engine.reload()
        self._take_up_template()

    def _take_up_template(self) -> None:
        facts = self.engine.facts
        self.conversation.template = self.template or taught_template(facts["checkpoint"])
        self.conversation.end_of_text = facts.get("end_of_text")


class Quit(Exception):
    """Raised by /quit."""


class Chat:
    """`enter` takes what was typed, a message or a command; the rest is what a screen asks.

    `interrupted` is asked while an answer runs: how often ctrl+c came. Once cancels the answer, twice ends the engine.
    """

    def __init__(
        self,
        engine: Engine,
        screen: Screen,
        settings: SamplingConfig,
        *,
        template: Template | None = None,
        interrupted: Callable[[], int] = lambda: 0,
    ) -> None:
        self.screen = screen
        self.settings = settings
        self.speaker = Speaker(engine, template)
        self.other: Speaker | None = None
        self.alternatives: int | None = None
        self._interrupted = interrupted
        self._lost: str | None = None
        self._answers_since_seed = 0

    def start(self) -> None:
        """Start the engine and wait for its model."""
        self.speaker.start()

    def close(self) -> None:
        for speaker in self._speakers():
            speaker.engine.close()

    def enter(self, text: str) -> None:
        """Answer a message, or obey a command. Raises `LMPlayError` with what is wrong, and `Quit`."""
        if text.startswith("/") and not text.startswith("//"):
            name, _, argument = text[1:].strip().partition(" ")
            self._command(name, argument.strip())
        elif text.strip():
            self.ask(text.removeprefix("/") if text.startswith("//") else text)

    def footer(self) -> str:
        """One line: how fast the last answer came, what the cache holds, and the settings."""
        settings = self.settings
        parts = [self.speaker.title, str(self.speaker.engine.facts.get("weights", ""))]
        if (last := self.speaker.last) is not None:
            parts += [f"{last['tokens_per_second']:.1f} tok/s", f"first {last['time_to_first_token']:.2f} s"]
        parts.append(f"cache {megabytes(self._fact('cache_bytes', 0))}")
        parts.append(f"{self._fact('held_tokens', 0)}/{self.speaker.engine.facts.get('max_len', '?')} tokens")
        chosen = [f"temp {settings.temperature:g}", f"top_k {settings.top_k}", f"seed {self._seed()}"]
        if settings.top_p < 1:
            chosen.append(f"top_p {settings.top_p:g}")
        if settings.min_p > 0:
            chosen.append(f"min_p {settings.min_p:g}")
        return SEPARATOR.join([*parts, " ".join(chosen)])

    def ask(self, text: str) -> None:
        """Let each model answer, and keep the turn."""
        self._lost = text
        speakers = self._speakers()
        seed = self._seed()
        self._answers_since_seed += 1
        if len(speakers) == 1:
            self._answer(self.speaker, text, seed, self.screen.write)
        else:
            self.screen.side_by_side(
                [speaker.title for speaker in speakers],
                [partial(self._answer, speaker, text, seed) for speaker in speakers],
            )
        for speaker in speakers:
            self._remark(speaker)

    def _answer(self, speaker: Speaker, text: str, seed: int, write: Callable[[str], None]) -> None:
        request = {
            "context": speaker.conversation.tokens,
            "prompt": speaker.conversation.prompt_for(text),
            "settings": {**self.settings.model_dump(), "seed": seed},
            "probabilities": self.alternatives,
        }
        try:
            self._run(speaker, request, text, write)
        except EngineDiedError as error:
            self.screen.say(f"{error}; starting it again")
            self._restart(speaker)
            self.screen.say("a new engine is ready and knows the turns so far; /retry asks again")

    def _restart(self, speaker: Speaker) -> None:
        """A new engine with the same checkpoint, or with the newest where that one is gone by now."""
        speaker.last = None
        try:
            speaker.start(speaker.engine.facts["checkpoint"])
        except EngineRefusedError:
            speaker.start()
            self.screen.say(f"its checkpoint is gone; now {speaker.title}")

    def _run(self, speaker: Speaker, request: dict[str, Any], text: str, write: Callable[[str], None]) -> None:
        stops = 0

        def poll() -> None:
            nonlocal stops
            wanted = self._interrupted()
            if wanted > stops:
                stops = wanted
                if stops == 1:
                    speaker.engine.cancel()
                else:
                    speaker.engine.kill()

        for event in speaker.engine.generate(poll=poll, **request):
            if event["event"] == "text":
                write(event["text"])
                continue
            speaker.last = event
            if speaker is self.speaker:
                self._lost = None
            speaker.conversation.turns.append(
                Turn(
                    text=text,
                    prompt="".join(request["prompt"]),
                    prompt_tokens=event["prompt_tokens"],
                    answer=event["text"],
                    tokens=event["tokens"],
                    stopped_by=event["stopped_by"],
                    seed=request["settings"]["seed"],
                )
            )

    def _remark(self, speaker: Speaker) -> None:
        """What is to be said of the last answer, where something is."""
        last = speaker.last
        if last is None:
            return  # its engine died
        if last["stopped_by"] == "cancelled":
            self.screen.say("stopped")
        if last["stopped_by"] == "not_finite":
            self.screen.say("the model's logits are not numbers (NaN); its weights are broken, try an older checkpoint")
        if last["slides"] and not speaker.told_of_slide:
            speaker.told_of_slide = True
            limit = speaker.engine.facts["max_len"]
            self.screen.say(f"the text is longer than the model's {limit} tokens; its oldest part was dropped")
        for item in last.get("probabilities", ()):
            others = "  ".join(
                f"{other['text']!r} {other['probability']:.1%}" for other in item.get("alternatives", ())
            )
            self.screen.say(f"{item['probability']:7.1%}  {item['text']!r:<16} {others}")

    def _command(self, name: str, argument: str) -> None:
        name = ALIASES.get(name, name)
        if name in SamplingConfig.model_fields:
            self._set(name, argument)
        elif name in COMMANDS:
            COMMANDS[name].run(self, argument)
        else:
            known = [*COMMANDS, *ALIASES, *SamplingConfig.model_fields]
            hint = did_you_mean(name, known) or "; /help lists them"
            raise WrongUsageError(f"there is no command /{name}{hint}")

    def _set(self, name: str, argument: str) -> None:
        if argument:
            value: Any = tuple(argument.encode().decode("unicode_escape").split("|")) if name == "stop" else argument
            if name == "stop" and argument == "off":
                value = ()
            self.settings = sampling_config(**{**self.settings.model_dump(), name: value})
            if name == "seed":
                self._answers_since_seed = 0
        self.screen.say(f"{name} = {getattr(self.settings, name)!r}")

    def _seed(self) -> int:
        """Of the next answer: each takes the next number, so that asking again gives another answer."""
        return self.settings.seed + self._answers_since_seed

    def _speakers(self) -> list[Speaker]:
        return [self.speaker] if self.other is None else [self.speaker, self.other]

    def _fact(self, name: str, default: Any) -> Any:
        return (self.speaker.last or {}).get(name, self.speaker.engine.facts.get(name, default))

    def _help(self, _: str) -> None:
        for name, command in COMMANDS.items():
            self.screen.say(f"  /{name + ' ' + command.argument:<22} {command.help}")
        for name, setting in SamplingConfig.model_fields.items():
            self.screen.say(f"  /{name + ' X':<22} {getattr(self.settings, name)!r}: {setting.description}")
        self.screen.say(
            "  /temp and /penalty are short for /temperature and /repetition_penalty; //x sends /x as text."
        )

    def _reset(self, _: str) -> None:
        for speaker in self._speakers():
            speaker.conversation.turns.clear()
            speaker.last, speaker.told_of_slide = None, False
        self._lost = None
        self.screen.say("a new conversation")

    def _undo(self, _: str) -> None:
        text = self._take_back()
        self.screen.say(f"taken back: {shortened(text)!r}; {turns(self.speaker.conversation)} left")

    def _retry(self, _: str) -> None:
        if self._lost is None:
            self.ask(self._take_back())
            return
        # The first model never answered; where the second did, its turn goes, so that both are asked the same.
        if self.other is not None and [turn.text for turn in self.other.conversation.turns[-1:]] == [self._lost]:
            self.other.conversation.undo()
        self.ask(self._lost)

    def _take_back(self) -> str:
        """The message of the last turn, which no speaker remembers any more."""
        text = self.speaker.conversation.undo().text
        if self.other is not None and self.other.conversation.turns:
            self.other.conversation.undo()
        return text

    def _save(self, argument: str) -> None:
        path = Path(argument or time.strftime("chat-%Y%m%d-%H%M%S.json")).expanduser()
        if path.exists():
            raise WrongUsageError(f"{path} exists already; choose another name")
        if path.suffix == ".json":
            content = {"model": self.speaker.engine.facts, "settings": self.settings.model_dump()}
            content |= self.speaker.conversation.as_dict()
            text = to_json(content, indent=2) + "\n"
        else:
            text = self.speaker.conversation.as_text()
        try:
            write_atomically(path, text)
        except OSError as error:
            raise LMPlayError(f"{path} can't be written: {error.strerror}") from error
        self.screen.say(f"saved {turns(self.speaker.conversation)} in {path}")

    def _probs(self, argument: str) -> None:
        if argument == "off" or (not argument and self.alternatives is not None):
            self.alternatives = None
            self.screen.say("probabilities are off")
            return
        if argument and not (argument.isdecimal() and int(argument) <= 100):
            raise WrongUsageError(f"/probs takes a number of alternatives up to 100, or off, not {argument!r}")
        self.alternatives = int(argument) if argument else DEFAULT_ALTERNATIVES
        self.screen.say(f"each answer is followed by its probabilities and {self.alternatives} alternatives a token")

    def _reload(self, _: str) -> None:
        for speaker in self._speakers():
            before = speaker.engine.facts.get("checkpoint")
            speaker.reload()
            same = " (no newer one yet)" if speaker.engine.facts["checkpoint"] == before else ""
            self.screen.say(f"now {speaker.title}{same}")

    def _compare(self, argument: str) -> None:
        if self.other is not None:
            self.other.engine.close()
            self.other = None
        if not argument or argument == "off":
            self.screen.say("one model answers")
            return
        mine = self.speaker.engine
        engine = Engine(argument, **mine.options)
        other = Speaker(engine, self.speaker.template)
        try:
            other.start()
        except LMPlayError:
            engine.close()
            raise
        self.other = other
        if engine.facts["tokenizer"] == mine.facts["tokenizer"]:
            self.other.conversation.turns.extend(self.speaker.conversation.turns)
        self.screen.say(
            f"{self.speaker.title} and {self.other.title} answer side by side, each going on from its own words; "
            "/compare off ends it"
        )

    def _quit(self, _: str) -> None:
        raise Quit


@dataclass(frozen=True)
class Command:
    argument: str
    help: str
    run: Callable[[Chat, str], None]


COMMANDS = {
    "help": Command("", "List the commands.", Chat._help),
    "reset": Command("", "Forget the conversation.", Chat._reset),
    "undo": Command("", "Take back the last turn.", Chat._undo),
    "retry": Command("", "Ask the last message again, with the next seed.", Chat._retry),
    "save": Command("[FILE]", "Write the conversation: all of it as .json, else the bare text.", Chat._save),
    "probs": Command("[N|off]", "Show each token's probability and N alternatives.", Chat._probs),
    "compare": Command("RUN|off", "Let another model answer beside this one.", Chat._compare),
    "reload": Command("", "Take the newest checkpoint of the run.", Chat._reload),
    "quit": Command("", "Leave (also ctrl+d).", Chat._quit),
}


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"


def turns(conversation: Conversation) -> str:
    count = len(conversation.turns)
    return f"{count} turn{'' if count == 1 else 's'}"


def shortened(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
