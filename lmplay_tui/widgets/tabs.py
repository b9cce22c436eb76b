"""A line of titles, one of which is chosen; and the views behind them, of which one is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from lmplay_tui.lines import line, to_strip
from lmplay_tui.theme import palette_of


class TabLine(Widget):
    """The titles; a click chooses one."""

    DEFAULT_CSS = """
    TabLine { height: 1; width: 1fr; }
    """

    @dataclass
    class Chosen(Message):
        name: str

    def __init__(self, titles: Mapping[str, str]) -> None:
        super().__init__()
        self._titles = dict(titles)
        self._notes: dict[str, tuple[str, str]] = {}
        self._hidden: set[str] = set()
        self.chosen = next(iter(self._titles))

    def choose(self, name: str) -> None:
        self.chosen = name
        self.refresh()

    @property
    def shown(self) -> list[str]:
        """The names of those that can be chosen."""
        return [name for name in self._titles if name not in self._hidden]

    def hide(self, name: str, *, hidden: bool) -> None:
        if hidden != (name in self._hidden):
            self._hidden ^= {name}
            self.refresh()

    def note(self, name: str, text: str, ink: str = "muted") -> None:
        """A few characters after a title: a count, a verdict."""
        if self._notes.get(name) != (text, ink):
            self._notes[name] = (text, ink)
            self.refresh()

    def _widths(self) -> list[int]:
        """Of what is shown, with the gap after it, which is left out where there isn't room for it."""
        widths = []
        for name in self.shown:
            note = self._notes.get(name, ("", ""))[0]
            widths.append(len(self._titles[name]) + 2 + (len(note) + 1 if note else 0))
        gap = 1 if sum(widths) + len(widths) - 1 <= self.size.width else 0
        return [width + gap for width in widths]

    def render_line(self, y: int) -> Strip:  # noqa: ARG002
        spans: list[tuple[str, str]] = []
        for name, width in zip(self.shown, self._widths(), strict=True):
            title = f" {self._titles[name]} "
            note, ink = self._notes.get(name, ("", ""))
            spans.append((title, "bold primary underline" if name == self.chosen else "muted"))
            spans.append((f"{note:<{width - len(title)}}", ink))
        return to_strip(line(*spans), palette_of(self.app), self.size.width).apply_style(self.rich_style)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        left = 0
        for name, width in zip(self.shown, self._widths(), strict=True):
            right = left + width
            if left <= event.x < right:
                self.post_message(self.Chosen(name))
                return
            left = right


class Views(Container):
    """One of several widgets, chosen by name, under a line of their titles."""

    DEFAULT_CSS = """
    Views { layout: vertical; height: 1fr; width: 1fr; }
    Views > .view { height: 1fr; }
    """

    @dataclass
    class Changed(Message):
        views: Views
        name: str

    def __init__(self, views: Mapping[str, tuple[str, Widget]], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._views = {name: widget for name, (_, widget) in views.items()}
        self.tabs = TabLine({name: title for name, (title, _) in views.items()})
        for widget in self._views.values():
            widget.add_class("view", update=False)
            widget.display = False
        self._views[self.chosen].display = True

    def compose(self) -> ComposeResult:
        yield self.tabs
        yield from self._views.values()

    @property
    def chosen(self) -> str:
        return self.tabs.chosen

    @property
    def in_sight(self) -> Widget:
        return self._views[self.chosen]

    @property
    def names(self) -> list[str]:
        return self.tabs.shown

    def hide(self, name: str, *, hidden: bool) -> None:
        """Take a view out of the line, because it stands elsewhere; the first one is shown in its place."""
        self.tabs.hide(name, hidden=hidden)
        if hidden and self.chosen == name:
            self.choose(self.names[0])

    def choose(self, name: str) -> None:
        """Show the view of that name; the focus moves with it when it was in the one before."""
        if name not in self.names or name == self.chosen:
            return
        before = self._views[self.chosen]
        had_focus = before.has_focus_within
        before.display = False
        self._views[name].display = True
        self.tabs.choose(name)
        if had_focus and self._views[name].focusable:
            self._views[name].focus()
        self.post_message(self.Changed(self, name))

    def next(self) -> None:
        names = self.names
        self.choose(names[(names.index(self.chosen) + 1) % len(names)])

    def on_tab_line_chosen(self, event: TabLine.Chosen) -> None:
        event.stop()
        self.choose(event.name)
