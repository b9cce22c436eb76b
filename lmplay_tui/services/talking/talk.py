"""A talk with one model, or with two that answer the same prompts: what is asked, answered again, taken back, kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from lmplay_tui.services.talking.chats import ChatStore, Conversation, Mode, branch, new_conversation
from lmplay_tui.services.talking.speaker import Speaker

Settings = Mapping[str, float | int]


class Talk:
    """`changed` is called whenever there is something new to show. Nothing here knows of a screen."""

    def __init__(self, store: ChatStore, changed: Callable[[], None]) -> None:
        self.store, self._changed = store, changed
        self.first = Speaker("", changed)
        self.second: Speaker | None = None
        self.busy = False
        """Whether something was asked that is not answered yet; the model may still have to be loaded for it."""

    @property
    def speakers(self) -> list[Speaker]:
        return [self.first] if self.second is None else [self.first, self.second]

    @property
    def writing(self) -> bool:
        """Whether an answer is being written."""
        return any(speaker.writing is not None for speaker in self.speakers)

    @property
    def mode(self) -> Mode:
        return self.first.conversation.mode

    @property
    def last_asked(self) -> str | None:
        """What was asked last; None before the first answer."""
        turns = self.first.conversation.turns
        return turns[-1].text if turns else None

    # ---- asking ------------------------------------------------------------------------------------------------------

    async def ask(self, text: str, settings: Settings) -> bool:
        """Let every model answer; False where none did, and the conversation is as it was."""
        self.busy = True
        try:
            answered = await asyncio.gather(*(speaker.ask(text, settings) for speaker in self.speakers))
        finally:
            self.busy = False
        if any(answered):
            # Whoever failed has the turn too: both are asked the same from here on, and may be asked this again.
            for speaker, done in zip(self.speakers, answered, strict=True):
                if not done:
                    speaker.miss(text, settings)
        return any(answered)

    async def ask_again(self, settings: Settings) -> bool:
        """Have the last turn answered anew, with the next seed; where that fails the answer before stays."""
        before = [speaker.conversation for speaker in self.speakers]
        last = self.first.conversation.turns[-1]
        self._drop_last()
        done = await self.ask(last.text, {**settings, "seed": last.seed + 1})
        if not done:
            for speaker, conversation in zip(self.speakers, before, strict=True):
                speaker.conversation = conversation
            self._changed()
        return done

    def take_back(self) -> str:
        """Undo the last turn; returns what was asked in it."""
        text = self.first.conversation.turns[-1].text
        self._drop_last()
        self._changed()
        return text

    def _drop_last(self) -> None:
        for speaker in self.speakers:
            speaker.conversation = speaker.conversation.without_last()

    async def stop(self) -> None:
        """End the answers that are being written; what there is of them stays."""
        await asyncio.gather(*(speaker.engine.cancel() for speaker in self.speakers if speaker.writing is not None))

    # ---- who talks ---------------------------------------------------------------------------------------------------

    def choose(self, model: str) -> None:
        """Talk to another model, in a conversation of its own."""
        self.first.model = model
        self.begin_anew(self.mode)

    def begin_anew(self, mode: Mode) -> None:
        """Everyone forgets what was said; it is kept on disk."""
        for speaker in self.speakers:
            speaker.take(new_conversation(speaker.model, mode))

    async def set_beside(self, model: str | None) -> None:
        """Have a second model answer too, or none; with another one both begin anew, and hear the same."""
        if self.second is not None:
            await self.second.engine.close()
            self.second = None
        if model is not None:
            self.second = Speaker(model, self._changed)
            self.begin_anew(self.mode)
        self._changed()

    # ---- keeping -----------------------------------------------------------------------------------------------------

    def branch(self) -> None:
        """Go on in a new conversation with the same turns; the one before stays as it is."""
        for speaker in self.speakers:
            speaker.conversation = branch(speaker.conversation)

    async def keep(self) -> str:
        """Write the conversations to disk; returns the id by which `take_up` finds them. Raises `OSError`."""
        kept = [replace(speaker.conversation, model=speaker.model) for speaker in self.speakers]
        kept[0] = replace(kept[0], beside=kept[1].id if len(kept) > 1 else "")

        def write() -> None:
            for conversation in kept:
                self.store.save(conversation)

        # With all probabilities a long one is megabytes: too long to be written between two keys.
        await asyncio.to_thread(write)
        return kept[0].id

    async def take_up(self, conversation: Conversation) -> None:
        """Go on with an earlier conversation, and with the model that answered beside it."""
        beside = await asyncio.to_thread(self.store.load, conversation.beside)
        if self.second is not None:
            await self.second.engine.close()
        self.second = Speaker(beside.model, self._changed) if beside is not None else None
        if self.second is not None and beside is not None:
            self.second.take(beside)
        self.first.take(conversation)

    async def close(self) -> None:
        """End the models' processes at once."""
        await asyncio.gather(*(speaker.engine.kill() for speaker in self.speakers))
