"""`lmplay-tui`: the application, its modes, the tick, and what holds everywhere.

One tick looks at the runs in a thread and hands one snapshot to the screen that is shown. Nothing else is on a timer,
and nothing that must go on lives in this process.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual.binding import Binding

from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay_tui.actions import bindings_for
from lmplay_tui.ascii_only import AsciiOnly
from lmplay_tui.in_order import KeysInOrder
from lmplay_tui.keymap import read_keymap
from lmplay_tui.modes import MODES, import_run_screens
from lmplay_tui.only_changed import SendsOnlyChanged
from lmplay_tui.options import Options
from lmplay_tui.pace import Pace
from lmplay_tui.services.commands import Commands
from lmplay_tui.services.experiments import ExperimentIndex
from lmplay_tui.services.memory import TIDY_SECONDS, forget_drawings, share_one_arena, tidy
from lmplay_tui.services.terminal import go_with_terminal
from lmplay_tui.state import State, config_file, state_folder
from lmplay_tui.theme import OWN_THEMES
from lmplay_tui.wayfinding import Wayfinding

if TYPE_CHECKING:
    from textual.await_complete import AwaitComplete
    from textual.command import Provider
    from textual.dom import DOMNode
    from textual.filter import LineFilter

    from lmplay.stats.apart import Reader
    from lmplay_tui.screens.base import WorkbenchScreen
    from lmplay_tui.services.preparation import Preparations
    from lmplay_tui.services.requests import Requests
    from lmplay_tui.services.run_feed import Feeds
    from lmplay_tui.services.run_store import RunStore, Snapshot


_STILL_TICKS = 6


class Workbench(Wayfinding, KeysInOrder, SendsOnlyChanged, inherit_bindings=False):
    """The frame. Screens find here: options, state, services, and the newest snapshot of the runs."""

    TITLE = "lmplay"
    BINDINGS = bindings_for("app")
    COMMANDS = {lambda: _palette()}  # noqa: RUF012 - as Textual has it
    MODES = dict(MODES)  # noqa: RUF012
    ENABLE_COMMAND_PALETTE = True
    CSS = """
    Screen { scrollbar-size: 1 1; }
    * { scrollbar-background: $background; scrollbar-background-hover: $background;
        scrollbar-background-active: $background; scrollbar-color: $border; scrollbar-color-hover: $primary;
        scrollbar-color-active: $primary; scrollbar-corner-color: $background; }
    CommandPalette > Vertical { max-height: 22; margin-top: 1; }
    CommandPalette OptionList { max-height: 18; }
    Tooltip { background: $panel; color: $foreground; }
    ToastRack { margin-bottom: 1; }
    Toast { max-width: 70; }
    """

    def __init__(
        self,
        options: Options,
        *,
        state: State | None = None,
        keymap: dict[str, str] | None = None,
        commands: Commands | None = None,
        index: ExperimentIndex | None = None,
        clock: Callable[[], float] = time.monotonic,
        reader: Reader | None = None,
    ) -> None:
        self.options = options
        self.state = state if state is not None else State()
        self.keymap = keymap or {}
        self.root = options.root
        self.marks = self.state.of_runs(self.root)
        # The screen that is shown first is there from the start. Switching to it from a default one would style and lay
        # out both, and keep the first frame back for 50 ms.
        self.DEFAULT_MODE = self._first_mode()  # type: ignore[misc]
        # Without colours at all, rather than in greys: the terminal's own, and what is chosen shown in reverse.
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)
        self.commands = commands or Commands()
        self.index = index or ExperimentIndex(self.commands)
        self.clock = clock
        self.snapshot: Snapshot | None = None
        self._store: RunStore | None = None
        self._requests: Requests | None = None
        self._feeds: Feeds | None = None
        self._reader = reader
        self._preparations: Preparations | None = None
        self.is_up = False
        """Whether the first screen stands, and is about to be drawn."""
        self.begun = asyncio.Event()
        """The first frame is out: what is heavy may be imported, read and started."""
        self._still = 0
        """Ticks since something was found that is new."""
        self._pace = Pace(self._look, clock)
        self._ascii_only = AsciiOnly()
        self.animation_level = "none"
        for theme in OWN_THEMES:
            self.register_theme(theme)
        # All styles are made with the colours of this theme from the start, see `refresh_css`.
        self.theme = self._styled_for = self._first_theme()
        self.stylesheet.set_variables(self.get_css_variables())
        self.set_keymap(self.keymap)

    # ---- starting and ending ----------------------------------------------------------------------------------------

    def _first_theme(self) -> str:
        wanted = self.options.theme or self.state.get("theme", "lmplay-dark")
        if wanted not in self.available_themes:
            if self.options.theme:
                raise WrongUsageError(
                    f"there is no theme {wanted!r}; there are {', '.join(sorted(self.available_themes))}"
                )
            wanted = "lmplay-dark"
        return wanted

    def _first_mode(self) -> str:
        if self.options.open:
            self.marks.set("shown", self.options.open)
            self.state.set("mode", "run")
        mode = self.state.get("mode", "experiments")
        return mode if mode in MODES else "experiments"

    def refresh_css(self, animate: bool = True) -> None:
        # Choosing a theme asks for this, and so does each new screen: before the first frame there is nothing to style
        # anew, and parsing all styles again takes as long as drawing them.
        if self.begun.is_set() or self.theme != self._styled_for:
            super().refresh_css(animate)

    def on_mount(self) -> None:
        self.is_up = True
        self.theme_changed_signal.subscribe(self, lambda theme: self.state.set("theme", theme.name))
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        if not gc.isenabled():  # see `__main__`
            gc.freeze()  # what stands now stays, and is never looked through
            gc.enable()
        self.begun.set()
        self.set_interval(1 / self.options.fps, self._tick)
        self.set_interval(TIDY_SECONDS, tidy)
        self.look_now()
        # Behind what the first screen is about to read and start.
        self.set_timer(1.0, lambda: self.run_worker(import_run_screens, thread=True, group="import"))

    @property
    def where(self) -> str:
        home = str(Path.home())
        text = str(self.root)
        return "~" + text[len(home) :] if text.startswith(home + os.sep) else text

    # ---- the tick ---------------------------------------------------------------------------------------------------

    @property
    def store(self) -> RunStore:
        if self._store is None:
            from lmplay_tui.services.run_store import RunStore

            self._store = RunStore(self.root, clock=self.clock)
        return self._store

    @property
    def requests(self) -> Requests:
        """What was asked of runs from here."""
        if self._requests is None:
            from lmplay_tui.services.requests import Requests

            self._requests = Requests(self.clock)
        return self._requests

    @property
    def feeds(self) -> Feeds:
        """What screens read runs with."""
        if self._feeds is None:
            from lmplay_tui.services.run_feed import Feeds

            self._feeds = Feeds(self._reader)
        return self._feeds

    @property
    def preparations(self) -> Preparations:
        """Text that is being turned into tokens."""
        if self._preparations is None:
            from lmplay_tui.services.preparation import Preparations

            self._preparations = Preparations()
        return self._preparations

    def look_now(self) -> None:
        """Look at the runs without waiting for the next tick."""
        if self.begun.is_set():
            self._pace.hurry()
            self._still = -1
            screen = self._shown()
            if screen is not None:
                screen.pace.hurry()
            self.run_worker(self._pace.look(), group="look")

    async def _tick(self) -> None:
        self.state.save()
        if not self.is_headless:
            go_with_terminal()
        await self._pace.look()

    async def _look(self) -> None:
        snapshot = await asyncio.to_thread(lambda: self.store.look())
        changed = snapshot is not self.snapshot
        self.snapshot = snapshot
        screen = self._shown()
        if screen is None:
            return
        self._still = 0 if changed else self._still + 1
        # Where no run is live and nothing else stirs, the screen is shown nothing new at most ticks.
        if snapshot.live or screen.stirs or self._still % _STILL_TICKS == 0:
            with self.batch_update():
                screen.take(snapshot)
                if changed:
                    screen.show_bars()
            screen.look_soon()

    def _shown(self) -> WorkbenchScreen | None:
        """The screen of the present mode, under whatever dialog is over it."""
        from lmplay_tui.screens.base import WorkbenchScreen

        stack = self.screen_stack
        # Mounting sets what a screen begins with: nothing may be shown on it before.
        return stack[0] if stack and isinstance(stack[0], WorkbenchScreen) and stack[0].is_mounted else None

    def get_line_filters(self) -> Sequence[LineFilter]:
        found = super().get_line_filters()
        return [*found, self._ascii_only] if self.options.ascii else found

    def pop_screen(self) -> AwaitComplete:
        # What a dialog waits for is given up with it, or it would be shown on what is being taken down.
        self.workers.cancel_node(self.screen)
        closed = super().pop_screen()
        forget_drawings()  # an evening with many dialogs would cost tens of megabytes
        return closed

    # ---- what holds everywhere --------------------------------------------------------------------------------------

    def action_theme(self) -> None:
        names = sorted(self.available_themes)
        self.theme = names[(names.index(self.theme) + 1) % len(names)]
        self.notify(f"theme {self.theme}", timeout=2)

    def action_picture(self) -> None:
        try:
            self.notify(f"written to {self.save_screenshot()}")
        except OSError as error:
            self.notify(f"{error.filename or Path.cwd()} can't be written: {error.strerror}", severity="error")

    def action_no_interrupt(self) -> None:
        """What `ctrl+c` does: copy what is selected, else what is in focus. It never ends the workbench, nor a run."""
        text = self.screen.get_selected_text()
        if not text:
            text = getattr(self.focused, "copied", str)()
            self.notify("q leaves the workbench; runs go on.", timeout=3)
        if text:
            self.copy(text)

    def action_jump(self) -> None:
        from lmplay_tui.dialogs.jump import JumpScreen

        self.push_screen(JumpScreen(self.screen))

    def action_command_palette(self) -> None:
        from lmplay_tui.dialogs.palette import Palette

        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def action_help(self) -> None:
        from lmplay_tui.dialogs.help import HelpScreen

        self.push_screen(HelpScreen(self.screen))

    async def action_quit(self) -> None:
        self.state.save()
        self.exit()

    def handle_bindings_clash(self, clashed_bindings: set[Binding], node: DOMNode) -> None:
        names = " and ".join(sorted(binding.description for binding in clashed_bindings))
        self.notify(f"The keymap gives one key to {names} of {type(node).__name__}.", severity="warning")

    async def on_unmount(self) -> None:
        self.state.save()
        await self.commands.close()


def _palette() -> type[Provider]:
    from lmplay_tui.dialogs.palette import WorkbenchCommands

    return WorkbenchCommands


def run(options: Options, reader: Reader | None = None) -> int:
    """Run the workbench; returns the exit status. `reader`: what reads the run that is to be shown already."""
    try:
        keymap = read_keymap(config_file())
        if options.keys or options.reset_terminal or options.serve:
            return _aside(options, keymap)
        root = options.root
        os.environ["LMPLAY_RUNS"] = str(root)  # for every command that is started from here
        share_one_arena()  # while there is one thread only
        app = Workbench(options, state=State(state_folder() / "workbench.json"), keymap=keymap, reader=reader)
        app.run(mouse=options.mouse)
    except LMPlayError as error:
        print(f"lmplay-tui: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status
    if app.snapshot is not None and app.return_code == 0:
        from lmplay_tui.aside import say_what_goes_on

        say_what_goes_on(app.snapshot, app.preparations.look())
    return app.return_code or 0


def _aside(options: Options, keymap: dict[str, str]) -> int:
    """What needs no screen."""
    from lmplay_tui.aside import print_keys, reset_terminal, serve

    if options.keys:
        print_keys(keymap)
    elif options.reset_terminal:
        reset_terminal()
    else:
        serve(options)
    return 0
