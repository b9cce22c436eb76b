"""What every screen has: the line at the top, the line of keys at the bottom, sizes, and the news of each tick."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from textual import events
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget
from textual.worker import Worker

from lmplay_tui.actions import BY_ID
from lmplay_tui.pace import Pace
from lmplay_tui.widgets.bars import KeyBar, TopBar

if TYPE_CHECKING:
    from lmplay_tui.app import Workbench
    from lmplay_tui.services.run_store import Snapshot


class WorkbenchScreen(Screen[None], inherit_bindings=False):
    """`compose_body` gives what stands between the two lines. `MODE` is its name in `actions.SCREENS`."""

    MODE = ""
    HELP = ""
    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-medium"), (160, "-wide")]  # noqa: RUF012 - as Textual has it
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-high")]  # noqa: RUF012
    DEFAULT_CSS = """
    WorkbenchScreen { layout: vertical; background: $background; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.pace = Pace(self.look, lambda: self.workbench.clock())

    def compose(self) -> ComposeResult:
        # At the first resize these are known anew; by then all that stands on the screen would be styled again.
        width, height = self.app.size
        for breakpoints, extent in ((self.HORIZONTAL_BREAKPOINTS, width), (self.VERTICAL_BREAKPOINTS, height)):
            self.add_class(max(point for point in breakpoints if point[0] <= extent)[1])
        yield TopBar()
        yield from self.compose_body()
        yield KeyBar()

    def compose_body(self) -> ComposeResult:
        raise NotImplementedError

    @property
    def workbench(self) -> Workbench:
        from lmplay_tui.app import Workbench

        assert isinstance(self.app, Workbench)
        return self.app

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]], group: str) -> Worker[None]:
        """Do something behind the screen, in place of what its group was doing."""
        return self.run_worker(work, group=group, exclusive=True)

    def on_mount(self) -> None:
        self.bindings_updated_signal.subscribe(self, lambda _: self._update_keys())

    def on_screen_resume(self) -> None:
        self.show_bars()
        self.workbench.look_now()

    def on_resize(self, event: events.Resize) -> None:  # noqa: ARG002
        self.call_next(self.show_bars)  # when the bars have their new width

    def take(self, snapshot: Snapshot) -> None:
        """What this tick found. Called for the screen that is shown, within one `batch_update`."""

    async def look(self) -> None:
        """What else this screen looks at each tick, beyond the list of runs; long reads belong in a thread."""

    @property
    def stirs(self) -> bool:
        """Whether something goes on that each tick may show more of, besides runs that are live."""
        return self.pace.is_busy

    def look_soon(self) -> None:
        """`look` in a worker of its own: a long run that is read for seconds holds up neither the list nor others."""
        if self.pace.is_due:
            self.run_worker(self.pace.look(), group="look")

    def _compositor_refresh(self) -> None:
        # While it starts, Textual draws the whole screen and throws that away: what comes first is drawn behind this.
        if self.workbench.is_up:
            super()._compositor_refresh()

    def show_bars(self) -> None:
        app = self.workbench
        snapshot = app.snapshot
        for bar in self.query(TopBar):
            bar.update_content(
                self.MODE,
                live=snapshot.live if snapshot is not None else 0,
                where=app.where,
                notice="read only" if app.options.readonly else "",
                ascii_only=app.options.ascii,
            )
        self._update_keys()

    def _update_keys(self) -> None:
        if self.is_attached and self.app.screen is self:
            for bar in self.query(KeyBar):
                bar.update_content(self.workbench.keymap, ascii_only=self.workbench.options.ascii)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """What changes something is not there with --readonly."""
        if not self.workbench.options.readonly:
            return True
        return not any(known.changes and known.name == action for known in BY_ID.values())

    def on_key(self, event: events.Key) -> None:
        """A key that is not there because of --readonly says so, instead of doing nothing."""
        if not self.workbench.options.readonly or event.key in self.active_bindings:
            return
        for node in (self.focused or self).ancestors_with_self:
            for binding in (found for kind in type(node).__mro__ for found in kind.__dict__.get("BINDINGS", ())):
                action = BY_ID.get(getattr(binding, "id", None) or "")
                if action is None or not action.changes:
                    continue
                keys = self.workbench.keymap.get(action.id, action.keys).split(",")
                if event.key in (key.strip() for key in keys):
                    self.notify(f"{action.title}: not with --readonly, which only looks", timeout=3)
                    return


def help_of(widget: Widget | None) -> str:
    """The help text of the widget in focus, or of what it stands on."""
    node = widget
    while node is not None:
        text = getattr(node, "HELP", None)
        if isinstance(text, str) and text:
            return text
        node = node.parent if isinstance(node.parent, Widget) else None
    return ""
