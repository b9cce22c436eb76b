"""Screen 6: talk to any checkpoint, that of a live run too; two side by side; every token with its alternatives."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import TextArea

from lmplay_tui.actions import bindings_for
from lmplay_tui.dialogs.asking import Choices
from lmplay_tui.screens.base import WorkbenchScreen
from lmplay_tui.services.chats import ChatStore, Mode, branch, new_conversation
from lmplay_tui.services.checkpoints import checkpoint_choices, newest_step
from lmplay_tui.services.run_store import Snapshot
from lmplay_tui.services.speaker import Speaker
from lmplay_tui.views.chat import model_lines, transcript
from lmplay_tui.widgets.pane import Pane, Split
from lmplay_tui.widgets.slider import Slider
from lmplay_tui.widgets.text_view import TextView
from lmplay_tui.widgets.token_view import TokenView

_REDRAWS = 10
"""A second, while an answer comes."""
_NONE = "(none)"

SLIDERS: tuple[tuple[str, str, tuple[float, ...], float, str], ...] = (
    # name of the setting, label, stops, default, what is said of it
    ("temperature", "temperature", tuple(round(0.05 * n, 2) for n in range(41)), 0.8, "Lower is safer; 0: the best."),
    ("top_k", "top-k", (0, 1, 2, 5, 10, 20, 40, 50, 100, 200, 500), 50, "Only the k most likely tokens; 0: all."),
    ("top_p", "top-p", tuple(round(0.05 * n, 2) for n in range(1, 21)), 1.0, "Only the likeliest that sum to p."),
    ("repetition_penalty", "penalty", tuple(round(1 + 0.05 * n, 2) for n in range(21)), 1.0, "Against repetition."),
    ("max_tokens", "tokens", (16, 32, 64, 128, 256, 512, 1024), 128, "The longest answer."),
    ("seed", "seed", tuple(range(100)), 0, "Of the draws; the same seed gives the same answer."),
)


_OURS = frozenset({"f6", "f7"})
"""Keys of the text area that the screen has another use for; selecting works with shift and the arrows."""


class Prompt(TextArea, inherit_bindings=False):
    """Where one writes: enter sends, alt+enter begins a new line."""

    HELP = "Write here. Enter sends, alt+enter or f10 begins a new line, escape goes to the conversation above."
    BINDINGS = [  # noqa: RUF012 - as Textual has it
        binding for binding in TextArea.BINDINGS if not (isinstance(binding, Binding) and binding.key in _OURS)
    ]
    DEFAULT_CSS = """
    Prompt { height: 4; border: none; padding: 0 1; background: $surface; }
    Prompt:focus { border: none; background: $panel; }
    """

    async def _on_key(self, event: events.Key) -> None:
        if event.key in ("enter", "alt+enter", "f10"):
            event.stop()
            event.prevent_default()
            screen = self.screen
            assert isinstance(screen, ChatScreen)
            if event.key == "enter":
                screen.action_send()
            else:
                self.insert("\n")
            return
        await super()._on_key(event)


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
        self.store = ChatStore()
        self.first = Speaker("", self._news)
        self.second: Speaker | None = None
        self._walked: Speaker | None = None
        """Whose answer is shown token by token."""
        self._possible = (False, False)
        """Whether an answer is being written, and whether there is one: what the keys can do goes with it."""
        self._drawn = 0.0
        self._draw_later = False
        self._newest: int | None = None

    def compose_body(self) -> ComposeResult:
        state = self.workbench.state
        settings = state.get("chat.settings", {})
        self.first_view = TextView(id="first", focusable=True, follow=True)
        self.second_view = TextView(id="second", focusable=True, follow=True)
        self.first_pane = Pane(self.first_view, title="Chat")
        self.second_pane = Pane(self.second_view, id="second-pane")
        self.prompt = Prompt(id="prompt", show_line_numbers=False)
        self.prompt.cursor_blink = False
        self.tokens = TokenView(id="tokens")
        self.token_pane = Pane(self.tokens, id="token-pane")
        self.model = TextView(id="model")
        self.sliders = {
            name: Slider(label, stops, value=float(settings.get(name, default)), told=told, id=name)
            for name, label, stops, default, told in SLIDERS
        }
        talk = Vertical(
            Horizontal(self.first_pane, self.second_pane, id="answers"),
            self.token_pane,
            Pane(self.prompt, title="Say", id="say"),
        )
        side = Pane(*self.sliders.values(), self.model, title="Sampling and model", id="side")
        yield Split(talk, side, share=state.get("layout.chat", 0.0) or None, usual=_talk_width, least=24)

    def on_mount(self) -> None:
        super().on_mount()
        state = self.workbench.state
        kept = self.store.load(state.get("chat.conversation", ""))
        if kept is not None:
            self.first.take(kept)
        self.prompt.focus()
        self._show()

    async def on_unmount(self) -> None:
        await asyncio.gather(*(speaker.engine.kill() for speaker in self._speakers))

    @property
    def _speakers(self) -> list[Speaker]:
        return [self.first] if self.second is None else [self.first, self.second]

    # ---- the tick, and what is shown ---------------------------------------------------------------------------------

    def take(self, snapshot: Snapshot) -> None:
        wanted = self.workbench.marks.get("chat", "")
        if wanted and wanted != self.first.model and not self.first.busy:
            self._choose(wanted)
        elif not self.first.model:
            trained = [run for run in snapshot.runs if run.status.step > 0]
            if trained:
                self.first.model = trained[0].name
                self._show()
        self.workbench.marks.set("chat", "")

    async def look(self) -> None:
        """Whether the run has a newer checkpoint than the one that answers."""
        newest = await asyncio.to_thread(newest_step, self.workbench.root, self.first.model)
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
        ascii_only = self.workbench.options.ascii
        with self.app.batch_update():
            for speaker, view, pane in (
                (self.first, self.first_view, self.first_pane),
                (self.second, self.second_view, self.second_pane),
            ):
                if speaker is not None:
                    view.show(transcript(speaker, view.size.width or 60, ascii_only=ascii_only))
                    pane.entitle(speaker.title or "Chat")
            possible = (self._writing, bool(self.first.conversation.turns))
            if possible != self._possible:
                self._possible = possible
                self.refresh_bindings()
            self.model.show(
                model_lines(
                    self.first, self.model.size.width or 28, newest=self._newest, mode=self.first.conversation.mode
                )
            )
            walked = self._walked if self._walked in self._speakers else self.first
            turns = walked.conversation.turns if walked is not None else ()
            self.tokens.show(turns[-1].probabilities if turns else ())
            self.token_pane.entitle(f"Token by token: {walked.title}" if walked is not None else "")

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

    @property
    def settings(self) -> dict[str, float | int]:
        """Of the next answer."""
        whole = {"top_k", "max_tokens", "seed"}
        return {name: int(one.value) if name in whole else one.value for name, one in self.sliders.items()}

    @on(Slider.Changed)
    def _slid(self) -> None:
        self.workbench.state.set("chat.settings", self.settings)

    @on(TextArea.Changed)
    def _typing(self) -> None:
        """The model is loaded while one types."""
        if self.prompt.text and self.first.model and not self.first.busy and not self.first.engine.running:
            self.run_worker(self.first.load(), group="load", exclusive=True)

    def action_send(self) -> None:
        text = self.prompt.text
        if not self.first.model:
            self.notify("choose a model first: f4", timeout=3)
        elif self._writing:
            self.notify("an answer is being written; escape stops it", timeout=2)
        elif text.strip():
            self.prompt.text = ""
            self.run_worker(self._ask(text), group="ask")

    def action_newline(self) -> None:
        self.prompt.insert("\n")

    async def _ask(self, text: str, *, seed: int | None = None) -> None:
        settings = {**self.settings, **({"seed": seed} if seed is not None else {})}
        answers = await asyncio.gather(*(speaker.ask(text, settings) for speaker in self._speakers))
        if not answers[0] and not self.prompt.text:
            self.prompt.text = text  # nothing that was written is lost
        self._keep()

    def _keep(self) -> None:
        conversation = self.first.conversation
        self.workbench.state.set("chat.conversation", conversation.id)
        try:
            self.store.save(replace(conversation, model=self.first.model))
        except OSError as error:
            self.notify(f"the conversation can't be kept: {error.strerror}", severity="warning")

    @property
    def _writing(self) -> bool:
        return any(speaker.writing is not None for speaker in self._speakers)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape stops an answer; when none is being written it leaves the field. Some keys need an answer."""
        # The screen's choice: the field itself learns of it later, maybe after the keys were last asked for.
        here = self.focused is self.prompt
        if action == "stop":
            return self._writing
        if action in ("leave", "send", "newline"):
            return here and not (self._writing and action == "leave")
        if action == "write":
            return not here and not self._writing
        if action in ("retry", "edit", "branch") and not self.first.conversation.turns:
            return False
        return super().check_action(action, parameters)

    def _free(self) -> bool:
        """Whether the conversation may be changed now; says so where not."""
        if any(speaker.busy for speaker in self._speakers):
            self.notify("an answer is being written; escape stops it", timeout=2)
            return False
        return True

    def action_stop(self) -> None:
        for speaker in self._speakers:
            if speaker.writing is not None:
                self.run_worker(speaker.engine.cancel(), group="cancel")

    def action_leave(self) -> None:
        self.first_view.focus()

    def action_write(self) -> None:
        self.prompt.focus()

    def action_retry(self) -> None:
        turns = self.first.conversation.turns
        if turns and self._free():
            for speaker in self._speakers:
                speaker.conversation = speaker.conversation.without_last()
            self.run_worker(self._ask(turns[-1].text, seed=turns[-1].seed + 1), group="ask")

    def action_edit(self) -> None:
        turns = self.first.conversation.turns
        if turns and self._free():
            for speaker in self._speakers:
                speaker.conversation = speaker.conversation.without_last()
            self.prompt.text = turns[-1].text
            self.prompt.focus()
            self._show()

    def action_branch(self) -> None:
        if self._free():
            self._keep()
            for speaker in self._speakers:
                speaker.conversation = branch(speaker.conversation)
            self.notify("a new conversation from here; the one before is kept", timeout=3)
            self._keep()

    def action_mode(self) -> None:
        if not self._free():
            return
        mode: Mode = "talk" if self.first.conversation.mode == "continue" else "continue"
        for speaker in self._speakers:
            speaker.take(new_conversation(speaker.model, mode))
        self.notify("talking in turns" if mode == "talk" else "continuing a text", timeout=2)

    def action_tokens(self) -> None:
        """The tokens of the first answer, of the second where there is one, then none."""
        if not self.has_class("-tokens"):
            self._walked = self.first
        elif self.second is not None and self._walked is self.first:
            self._walked = self.second
        else:
            self._walked = None
        self.set_class(self._walked is not None, "-tokens")
        (self.tokens if self._walked is not None else self.prompt).focus()
        self._show()

    # ---- which model, which conversation -----------------------------------------------------------------------------

    def _choose(self, model: str) -> None:
        """Talk to another model, in a conversation of its own."""
        self.first.model = model
        self.first.take(new_conversation(model, self.first.conversation.mode))
        self.run_worker(self.first.load(), group="load", exclusive=True)

    def action_model(self) -> None:
        self.run_worker(self._ask_model(), group="dialog")

    async def _ask_model(self) -> None:
        chosen = await self._pick("Talk to", self.first.model)
        if chosen:
            self._choose(chosen)

    def action_second(self) -> None:
        self.run_worker(self._ask_second(), group="dialog")

    async def _ask_second(self) -> None:
        chosen = await self._pick("Beside it", self.second.model if self.second is not None else "", none=True)
        if not chosen:
            return
        if self.second is not None:
            await self.second.engine.close()
            self.second = None
        if chosen != _NONE:
            self.second = Speaker(chosen, self._news)
            # Both answer from here on; what the first one was told before is not the second one's.
            for speaker in self._speakers:
                speaker.take(new_conversation(speaker.model, self.first.conversation.mode))
            self.run_worker(self.second.load(), group="load-second", exclusive=True)
        self.set_class(self.second is not None, "-two")
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
        if not self.first.busy and self.first.model:
            self.run_worker(self.first.load(again=True), group="load", exclusive=True)

    def action_conversations(self) -> None:
        self.run_worker(self._ask_conversation(), group="dialog")

    async def _ask_conversation(self) -> None:
        kept = await asyncio.to_thread(self.store.all)
        if not kept:
            self.notify("no conversation is kept yet", timeout=3)
            return
        choices = [(one.id, f"{one.model}: {one.title} ({len(one.turns)})") for one in kept]
        chosen = await self.app.push_screen_wait(Choices("Conversations", choices, chosen=self.first.conversation.id))
        found = next((one for one in kept if one.id == chosen), None)
        if found is not None and not self.first.busy:
            self.first.take(found)
            self.workbench.state.set("chat.conversation", found.id)
