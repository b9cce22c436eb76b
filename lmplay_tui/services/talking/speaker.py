"""One model in a chat: its engine, its view of the conversation, and the answer that is being written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from lmplay_tui.services.talking.chats import TALK_STOPS, Conversation, Turn, done_turn, new_conversation
from lmplay_tui.services.talking.engine import Engine, EngineError

ALTERNATIVES = 5


class Speaker:
    """`ask` writes a turn; `changed` is called whenever there is something new to show."""

    def __init__(self, model: str, changed: Callable[[], None], *, engine: Engine | None = None) -> None:
        self.model = model
        """A run, RUN@best, RUN@STEP, or the folder of a checkpoint."""
        self.conversation = new_conversation(model)
        self.engine = engine or Engine()
        self.writing: str | None = None
        """What the answer is so far, while one is being written."""
        self.asked = ""
        """What waits for its answer; shown before the model is there."""
        self.activity = ""
        self.problem = ""
        self.last: Mapping[str, Any] = {}
        """The `done` event of the newest answer."""
        self._changed = changed
        self._loaded = ""
        self._loading = asyncio.Lock()

    @property
    def busy(self) -> bool:
        return self.writing is not None or bool(self.activity)

    @property
    def title(self) -> str:
        facts = self.engine.facts
        step = f" @{facts['step']:,}" if isinstance(facts.get("step"), int) else ""
        return f"{self.model.partition('@')[0]}{step}" if facts else self.model

    async def load(self, *, again: bool = False) -> bool:
        """Have the model loaded; `again` takes the newest checkpoint of its run. False with a `problem`."""
        async with self._loading:  # typing has it loaded, and so has sending, before the engine is up
            model = self.model
            if self.engine.running and self._loaded == model and not again:
                return True
            self.activity, self.problem = f"loading {model}", ""
            self._changed()
            try:
                await self.engine.load(model)
                self._loaded = model
                return True
            except EngineError as error:
                self.problem = str(error)
                return False
            finally:
                self.activity = ""
                self._changed()

    async def ask(self, text: str, settings: Mapping[str, Any]) -> bool:
        """Let the model answer; the turn is in the conversation when it comes to its end. False with a `problem`."""
        self.asked = text
        try:
            return await self.load() and await self._answer(text, settings)
        finally:
            self.asked = ""
            self._changed()

    async def _answer(self, text: str, settings: Mapping[str, Any]) -> bool:
        prompt = self.conversation.prompt_for(text)
        stop = list(TALK_STOPS) if self.conversation.mode == "talk" else []
        self.writing, self.problem = "", ""
        self._changed()
        try:
            async for event in self.engine.generate(
                context=self.conversation.context,
                prompt=prompt,
                settings={**settings, "stop": stop},
                probabilities=ALTERNATIVES,
            ):
                if event.get("event") == "text":
                    self.writing = (self.writing or "") + str(event.get("text", ""))
                elif event.get("event") == "done":
                    self.last = event
                    turn: Turn = done_turn(text, prompt, int(settings.get("seed", 0)), event)
                    self.conversation = self.conversation.with_turn(turn)
                    self.writing, self.asked = None, ""  # or it would be shown twice
                self._changed()
            return True
        except EngineError as error:
            self.problem = str(error)
            self._loaded = "" if error.died else self._loaded
            return False
        finally:
            self.writing = None

    def miss(self, text: str, settings: Mapping[str, Any]) -> None:
        """A turn without an answer: the other model has one to it."""
        missed = Turn(text=text, prompt="", stopped_by="failed", seed=int(settings.get("seed", 0)))
        self.conversation = self.conversation.with_turn(missed)
        self._changed()

    def take(self, conversation: Conversation) -> None:
        """Go on with an earlier conversation."""
        self.conversation, self.last, self.problem = conversation, {}, ""
        if conversation.model:
            self.model = conversation.model
        self._changed()
