"""Screen 6: talk to any checkpoint, that of a live run too; two side by side; every token with its alternatives."""

from __future__ import annotations

import asyncio

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import TextArea

from lmplay_tui.actions import bindings_for
from lmplay_tui.dialogs.asking import Choices
from lmplay_tui.screens.base import WorkbenchScreen
from lmplay_tui.services.run_store import Snapshot
from lmplay_tui.services.talking.chats import ChatStore, Mode
from lmplay_tui.services.talking.checkpoints import checkpoint_choices, newest_step
from lmplay_tui.services.talking.speaker import Speaker
from lmplay_tui.services.talking.talk import Talk
from lmplay_tui.views.chat import conversation_choices, model_lines, transcript
from lmplay_tui.widgets.pane import Pane, Split
from lmplay_tui.widgets.prompt import Prompt
from lmplay_tui.widgets.sampling import Sampling
from lmplay_tui.widgets.slider import Slider
from lmplay_tui.widgets.text_view import TextView
from lmplay_tui.widgets.token_view import TokenView

_REDRAWS = 10
"""A second, while an answer comes."""
_NONE = "(none)"


def _talk_width(width: int) -> int:
    return width - min(44, max(29, width // 4))


class ChatScreen(WorkbenchScreen):
    MODE = "chat"
    HELP = (
        "Talk to a checkpoint. The model runs in a process of its own: it may be stopped, killed or crash, the "
        "conversation is kept here and on disk. Two models answer the same prompts side by side."
    )
    BINDINGS = bindings_for("chat")
    DEFAULT_CSS = """
    ChatScreen #answers { height: 1fr; }
    ChatScreen #answers TextView { height: 1fr; }
    ChatScreen #second-pane { display: none; border-left: solid $border-blurred; }
    ChatScreen.-two #second-pane { display: block; }
    ChatScreen #token-pane { display: none; height: 14; }
    ChatScreen.-tokens #token-pane { display: block; }
    ChatScreen.-short #token-pane { height: 11; }
    ChatScreen #say { height: 5; }
    ChatScreen #model { height: auto; margin-top: 1; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk(ChatStore(), self._news)
        self._walked: Speaker | None = None
        """Whose answer is shown token by token."""
        self._possible = (False, False)
        """Whether an answer is being written, and whether there is one: what the keys can do goes with it."""
        self._drawn = 0.0
        self._draw_later = False
        self._newest: int | None = None

    def compose_body(self) -> ComposeResult:
        state = self.workbench.state
        self.first_view = TextView(id="first", focusable=True, follow=True)
        self.second_view = TextView(id="second", focusable=True, follow=True)
        self.first_pane = Pane(self.first_view, title="Chat")
        self.second_pane = Pane(self.second_view, id="second-pane")
        self.prompt = Prompt(id="prompt", show_line_numbers=False)
        self.prompt.cursor_blink = False
        self.tokens = TokenView(id="tokens")
        self.token_pane = Pane(self.tokens, id="token-pane")
        self.sampling = Sampling(state.get("chat.settings", {}))
        self.model = TextView(id="model")
        talk = Vertical(
            Horizontal(self.first_pane, self.second_pane, id="answers"),
            self.token_pane,
            Pane(self.prompt, title="Say", id="say"),
        )
        side = Pane(self.sampling, self.model, title="Sampling and model", id="side")
        yield Split(talk, side, share=state.get("layout.chat", 0.0) or None, usual=_talk_width, least=24)

    def on_mount(self) -> None:
        super().on_mount()
        self.prompt.focus()
        self._show()
        if not self.workbench.marks.get("chat", ""):  # nobody came to talk to a certain model
            self.run_worker(self._take_up(self.workbench.state.get("chat.conversation", "")), group="take-up")

    async def on_unmount(self) -> None:
        await self.talk.close()

    # ---- the tick, and what is shown ---------------------------------------------------------------------------------

    def take(self, snapshot: Snapshot) -> None:
        first = self.talk.first
        wanted = self.workbench.marks.get("chat", "")
        if wanted and wanted != first.model:
            if self.talk.busy:
                self.notify(f"{first.model} is not done; f4 goes to {wanted} then", timeout=4)
            else:
                self._choose(wanted)
        elif not first.model:
            trained = [run for run in snapshot.runs if run.status.step > 0]
            if trained:
                first.model = trained[0].name
                self._show()
        self.workbench.marks.set("chat", "")

    async def look(self) -> None:
        """Whether the run has a newer checkpoint than the one that answers."""
        newest = await asyncio.to_thread(newest_step, self.workbench.root, self.talk.first.model)
        if newest != self._newest:
            self._newest = newest
            self._show()

    def _news(self) -> None:
        """Something came from an engine: draw, but no oftener than a person can follow."""
        now = self.workbench.clock()
        if now - self._drawn >= 1 / _REDRAWS:
            self._show()
        elif not self._draw_later:
            self._draw_later = True
            self.set_timer(1 / _REDRAWS, self._show)

    def _show(self) -> None:
        self._drawn, self._draw_later = self.workbench.clock(), False
        if not self.is_mounted:
            return
        talk, ascii_only = self.talk, self.workbench.options.ascii
        with self.app.batch_update():
            self.set_class(talk.second is not None, "-two")
            for speaker, view, pane in (
                (talk.first, self.first_view, self.first_pane),
                (talk.second, self.second_view, self.second_pane),
            ):
                if speaker is not None:
                    view.show(transcript(speaker, view.size.width or 60, ascii_only=ascii_only))
                    pane.entitle(speaker.title or "Chat")
            possible = (talk.writing, talk.last_asked is not None)
            if possible != self._possible:
                self._possible = possible
                self.refresh_bindings()
            self._show_models()
            walked = self._walked if self._walked in talk.speakers else talk.first
            turns = walked.conversation.turns if walked is not None else ()
            self.tokens.show(turns[-1].probabilities if turns else ())
            self.token_pane.entitle(f"Token by token: {walked.title}" if walked is not None else "")

    def _show_models(self) -> None:
        width, mode = self.model.size.width or 28, self.talk.mode
        lines = model_lines(self.talk.first, width, newest=self._newest, mode=mode)
        if self.talk.second is not None:
            lines += [(), *model_lines(self.talk.second, width, newest=None, mode=mode)]
        self.model.show(lines)

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self.call_after_refresh(self._show)

    @on(Pane.Resized)
    def _pane_resized(self) -> None:
        self._show()

    @on(Split.Moved)
    def _split_moved(self, event: Split.Moved) -> None:
        self.workbench.state.set("layout.chat", event.share)

    # ---- talking -----------------------------------------------------------------------------------------------------

    @on(Slider.Changed)
    def _slid(self) -> None:
        self.workbench.state.set("chat.settings", self.sampling.settings)

    @on(TextArea.Changed)
    def _typing(self) -> None:
        """Models are loaded while one types; one that failed waits until it is asked, with what is said of that."""
        if self.prompt.text and self.talk.first.model:
            for speaker in self.talk.speakers:
                if not (speaker.busy or speaker.engine.running or speaker.problem):
                    self._load(speaker)

    def _load(self, speaker: Speaker, *, again: bool = False) -> None:
        group = "load" if speaker is self.talk.first else "load-second"
        self.run_worker(speaker.load(again=again), group=group, exclusive=True)

    def action_send(self) -> None:
        text = self.prompt.text
        if not self.talk.first.model:
            self.notify("choose a model first: f4", timeout=3)
        elif text.strip() and self._free():
            self.prompt.text = ""
            self.run_worker(self._ask(text), group="ask")

    def action_newline(self) -> None:
        self.prompt.insert("\n")

    async def _ask(self, text: str) -> None:
        if await self.talk.ask(text, self.sampling.settings):
            await self._keep()
        elif not self.prompt.text:
            self.prompt.text = text  # nothing that was written is lost

    async def _ask_again(self) -> None:
        if await self.talk.ask_again(self.sampling.settings):
            await self._keep()

    async def _keep(self) -> None:
        try:
            self.workbench.state.set("chat.conversation", await self.talk.keep())
        except OSError as error:
            self.notify(f"the conversation can't be kept: {error.strerror}", severity="warning")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape stops an answer; when none is being written it leaves the field. Some keys need an answer."""
        # The screen's choice: the field itself learns of it later, maybe after the keys were last asked for.
        here = self.focused is self.prompt
        if action == "stop":
            return self.talk.writing
        if action in ("leave", "send", "newline"):
            return here and not (self.talk.writing and action == "leave")
        if action == "write":
            return not here and not self.talk.writing
        if action in ("retry", "edit", "branch") and self.talk.last_asked is None:
            return False
        return super().check_action(action, parameters)

    def _free(self) -> bool:
        """Whether the conversation may be changed now; says so where not."""
        if self.talk.busy:
            waits = "an answer is being written; escape stops it"
            self.notify(waits if self.talk.writing else "the model is being loaded, then it answers", timeout=2)
        return not self.talk.busy

    def action_stop(self) -> None:
        self.run_worker(self.talk.stop(), group="cancel")

    def action_leave(self) -> None:
        self.first_view.focus()

    def action_write(self) -> None:
        self.prompt.focus()

    def action_retry(self) -> None:
        if self.talk.last_asked is not None and self._free():
            self.run_worker(self._ask_again(), group="ask")

    def action_edit(self) -> None:
        if self.talk.last_asked is not None and self._free():
            self.prompt.text = self.talk.take_back()
            self.prompt.move_cursor(self.prompt.document.end)
            self.prompt.focus()

    def action_branch(self) -> None:
        if self._free():
            self.run_worker(self._branch(), group="ask")

    async def _branch(self) -> None:
        await self._keep()
        self.talk.branch()
        self.notify("a new conversation from here; the one before is kept", timeout=3)
        await self._keep()

    def action_mode(self) -> None:
        if self._free():
            mode: Mode = "talk" if self.talk.mode == "continue" else "continue"
            self.talk.begin_anew(mode)
            self.notify("talking in turns" if mode == "talk" else "continuing a text", timeout=2)

    def action_tokens(self) -> None:
        """The tokens of the first answer, of the second where there is one, then none."""
        talk = self.talk
        if not self.has_class("-tokens"):
            self._walked = talk.first
        elif talk.second is not None and self._walked is talk.first:
            self._walked = talk.second
        else:
            self._walked = None
        self.set_class(self._walked is not None, "-tokens")
        (self.tokens if self._walked is not None else self.prompt).focus()
        self._show()

    # ---- which model, which conversation -----------------------------------------------------------------------------

    def _choose(self, model: str) -> None:
        self.talk.choose(model)
        self._load(self.talk.first)

    def action_model(self) -> None:
        self.run_worker(self._ask_model(), group="dialog")

    async def _ask_model(self) -> None:
        chosen = await self._pick("Talk to", self.talk.first.model)
        if chosen and self._free():
            self._choose(chosen)
            self.prompt.focus()

    def action_second(self) -> None:
        self.run_worker(self._ask_second(), group="dialog")

    async def _ask_second(self) -> None:
        second = self.talk.second
        chosen = await self._pick("Beside it", second.model if second is not None else "", none=True)
        if not chosen or not self._free():
            return
        before = self.talk.last_asked
        await self.talk.set_beside(None if chosen == _NONE else chosen)
        if self.talk.second is not None:
            self._load(self.talk.second)
            if before is not None:
                self.notify("both begin anew; the conversation before is kept: f3", timeout=4)
        self.prompt.focus()
        self.call_after_refresh(self._show)

    async def _pick(self, title: str, now: str, *, none: bool = False) -> str | None:
        snapshot = self.workbench.snapshot
        runs = [run for run in snapshot.runs if run.status.step > 0] if snapshot is not None else []
        choices = [(_NONE, "one model only")] if none else []
        choices += await asyncio.to_thread(checkpoint_choices, runs)
        if not choices:
            self.notify("no run has a checkpoint yet", timeout=3)
            return None
        return await self.app.push_screen_wait(Choices(title, choices, chosen=now))

    def action_reload(self) -> None:
        if self.talk.first.model and self._free():
            for speaker in self.talk.speakers:
                self._load(speaker, again=True)

    def action_conversations(self) -> None:
        self.run_worker(self._ask_conversation(), group="dialog")

    async def _ask_conversation(self) -> None:
        choices = conversation_choices(await asyncio.to_thread(self.talk.store.all))
        if not choices:
            self.notify("no conversation is kept yet", timeout=3)
            return
        now = self.talk.first.conversation.id
        chosen = await self.app.push_screen_wait(Choices("Conversations", choices, chosen=now))
        if chosen and self._free():
            await self._take_up(chosen)
            self.prompt.focus()

    async def _take_up(self, conversation: str) -> None:
        """Go on with a conversation that was kept, if it is there."""
        kept = await asyncio.to_thread(self.talk.store.load, conversation)
        if kept is not None:
            await self.talk.take_up(kept)
            self.workbench.state.set("chat.conversation", kept.id)
            self.call_after_refresh(self._show)
