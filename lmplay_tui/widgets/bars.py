"""The line at the top (where one is) and the line at the bottom (which keys work here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from textual import events
from textual.dom import DOMNode
from textual.strip import Strip
from textual.widget import Widget

from lmplay_tui.actions import BY_ID, SCREENS
from lmplay_tui.keymap import key_name
from lmplay_tui.lines import Line, fitted, line, plain, to_strip, width_of
from lmplay_tui.theme import palette_of


@dataclass(frozen=True)
class Place:
    """Cells of a bar that do something when they are clicked."""

    start: int
    end: int
    action: str
    node: DOMNode | None = None
    """Whose action it is; the app's without one."""


class _Bar(Widget):
    """One line over the whole width, repainted when it differs, with places to click."""

    DEFAULT_CSS = """
    _Bar { height: 1; width: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._content: Line = ()
        self._places: tuple[Place, ...] = ()

    def put(self, content: Line, places: tuple[Place, ...]) -> None:
        self._places = places
        if content != self._content:
            self._content = content
            self.refresh()

    @property
    def content(self) -> Line:
        return self._content

    def render_line(self, y: int) -> Strip:  # noqa: ARG002
        width = self.size.width
        strip = to_strip(fitted(self._content, width), palette_of(self.app), width, under="bar")
        return strip.apply_style(self.rich_style)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    async def on_click(self, event: events.Click) -> None:
        for place in self._places:
            if place.start <= event.x < place.end:
                await self.app.run_action(place.action, place.node or self.app)


class TopBar(_Bar):
    """Name, screens with their numbers, and what concerns all of them: how many runs are live, where the runs are."""

    DEFAULT_CSS = """
    TopBar { dock: top; }
    """

    def update_content(self, mode: str, *, live: int, where: str, notice: str = "", ascii_only: bool = False) -> None:
        told = [line((notice, "warn"))] if notice else []
        told += [line((f"{'*' if ascii_only else '●'} {live} live", "good"))] if live else []
        all_of_it = [*told, line((where, "muted"))]
        # What matters least goes first when there is no room: the folder, the long titles, the count, the notice.
        ways: tuple[tuple[str, list[Line]], ...] = (
            ("long", all_of_it),
            ("long", told),
            ("short", told),
            ("short", told[:1]),
            ("short", []),
            ("here", []),
        )
        for titles, status in ways:
            content, places = self._screens(mode, titles=titles)
            right = tuple(span for part in status for span in (*part, ("  ", "")))
            room = self.size.width - width_of(content) - width_of(right)
            if room >= 0:
                break
        self.put((*content, (" " * max(0, room), ""), *right), places)

    def _screens(self, mode: str, *, titles: str) -> tuple[Line, tuple[Place, ...]]:
        """`titles`: long, short, or here: only that of the screen that is shown, the others by their numbers."""
        content: list[tuple[str, str]] = [(" lmplay ", "bold primary")]
        places = []
        position = 8
        for number, (name, title, short) in enumerate(SCREENS, 1):
            here = name == mode
            label = title if titles == "long" else short if titles == "short" or here else ""
            spans = [
                (f" {number}", "key" if not here else "cursor bold"),
                (f" {label} " if label else "", "cursor bold" if here else "muted"),
            ]
            size = sum(len(text) for text, _ in spans)
            places.append(Place(position, position + size, BY_ID[f"app.{name}"].action))
            position += size
            content += spans
        return tuple(content), tuple(places)


class KeyBar(_Bar):
    """The keys of the widget in focus, of the screen, and of everywhere, as many as fit; each can be clicked."""

    DEFAULT_CSS = """
    KeyBar { dock: bottom; }
    """

    def update_content(self, keymap: Mapping[str, str], *, ascii_only: bool = False) -> None:
        """Read what can be done now from the screen."""
        # A key bar stands on a screen; what is active on it changes with the focus.
        active = self.screen.active_bindings.values()
        shown = []
        seen = set()
        for found in active:
            action = BY_ID.get(found.binding.id or "")
            if action is None or action.footer is None or action.id in seen or not found.enabled:
                continue
            seen.add(action.id)
            key = keymap.get(action.id, action.keys).split(",")[0].strip()
            shown.append((action.footer, key_name(key, ascii_only=ascii_only), action.title, found))
        shown.sort(key=lambda item: item[0])
        content: list[tuple[str, str]] = [(" ", "")]
        places = []
        position, width = 1, self.size.width
        # Help and leaving are always there, at the end.
        fixed = [item for item in shown if item[0] >= 90]
        for item in [*(item for item in shown if item[0] < 90), *fixed]:
            _, key, title, found = item
            size = len(key) + len(title) + 3
            after = 0 if item in fixed else sum(len(other[1]) + len(other[2]) + 3 for other in fixed)
            if position + size + after > width:
                continue
            content += [(key, "key"), (f" {title}  ", "muted")]
            places.append(Place(position, position + size, found.binding.action, found.node))
            position += size
        self.put(tuple(content), tuple(places))

    @property
    def text(self) -> str:
        return plain(self.content)
