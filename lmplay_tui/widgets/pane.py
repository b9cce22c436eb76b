"""A part of a screen under a rule with its title, coloured while the focus is inside; and two panes side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from lmplay_tui.actions import bindings_for
from lmplay_tui.lines import line, to_strip
from lmplay_tui.theme import palette_of

_SAID = Style(bold=False)


class Pane(Container):
    """A container under a rule, in which its title stands, and less boldly what is said of the content."""

    DEFAULT_CSS = """
    Pane {
        layout: vertical; height: 1fr; width: 1fr; padding: 0 1;
        border-top: solid $border-blurred;
        border-title-color: $text-muted; border-title-style: none; border-title-background: $background;
    }
    Pane:focus-within { border-top: solid $primary; border-title-color: $primary; border-title-style: bold; }
    """

    @dataclass
    class Resized(Message):
        """The pane has another size: what was wrapped to the one before is to be wrapped anew."""

        pane: Pane

        @property
        def control(self) -> Pane:
            return self.pane

    def __init__(
        self,
        *children: Widget,
        title: str = "",
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(*children, id=id, classes=classes)
        self._titles = ("", "")
        self._dragged: Split | None = None
        """The one whose border goes with the mouse now."""
        self.entitle(title)

    def entitle(self, title: str | None = None, subtitle: str | None = None) -> None:
        """Other titles; None leaves one as it is. They are shown as they are: names of files may hold brackets."""
        before = self._titles
        self._titles = (
            before[0] if title is None else title,
            before[1] if subtitle is None else subtitle,
        )
        if self._titles != before:
            # Both in the rule above: Textual draws a border's subtitle below, where a pane has no border.
            shown = (Content(self._titles[0]), Content.styled(self._titles[1], _SAID))
            self.border_title = Content("  ").join(part for part in shown if part.plain)

    def on_resize(self) -> None:
        self.post_message(self.Resized(self))

    # The rule of the lower of two panes is the border between them: it can be dragged.

    def on_mouse_down(self, event: events.MouseDown) -> None:
        splits = (node for node in self.ancestors if isinstance(node, Split))
        self._dragged = next((split for split in splits if split.is_border(self)), None) if event.y == 0 else None
        if self._dragged is not None:
            self.capture_mouse()
            event.stop()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if self._dragged is not None:
            self._dragged = None
            self.release_mouse()
            event.stop()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._dragged is not None:
            self._dragged.move_to(int(event.screen_y) - self._dragged.region.y)


class Split(Container):
    """Two widgets beside (or above) each other; the border between them moves by key and by mouse."""

    DEFAULT_CSS = """
    Split { layout: horizontal; height: 1fr; width: 1fr; }
    Split.-vertical { layout: vertical; }
    Split > .first { width: auto; height: 1fr; }
    Split.-vertical > .first { width: 1fr; height: auto; }
    Split > .second { width: 1fr; height: 1fr; }
    """
    BINDINGS = bindings_for("split")

    @dataclass
    class Moved(Message):
        """The border was moved; `share` of the room belongs to the first widget."""

        split: Split
        share: float

    def __init__(
        self,
        first: Widget,
        second: Widget,
        *,
        share: float | None,
        usual: Callable[[int], int] | None = None,
        vertical: bool = False,
        least: int = 12,
        id: str | None = None,
    ) -> None:
        """`share` of the room is the first widget's; None, until the border is moved: what `usual` says of the size."""
        super().__init__(id=id, classes="-vertical" if vertical else None)
        self._first, self._second, self._divider = first, second, Divider()
        first.add_class("first", update=False)
        second.add_class("second", update=False)
        self._share, self._usual, self._vertical, self._least = share, usual, vertical, least
        self._alone = False

    def compose(self) -> ComposeResult:
        yield self._first
        yield self._divider
        yield self._second

    def on_resize(self) -> None:
        self._apply()

    def fit(self) -> None:
        """What `usual` says has changed."""
        self._apply()

    @property
    def vertical(self) -> bool:
        return self._vertical

    def turn(self, *, vertical: bool, share: float | None) -> None:
        """One above the other, or beside each other; `share` as at the beginning."""
        self._vertical, self._share = vertical, share
        self.set_class(vertical, "-vertical")
        for widget in (self._first, self._second):
            widget.styles.clear_rule("width")
            widget.styles.clear_rule("height")
        self._apply()

    def is_border(self, pane: Widget) -> bool:
        """Whether the upper rule of a pane is what can be moved."""
        at_the_top = self._second in pane.ancestors_with_self and pane.region.y == self._second.region.y
        return self._vertical and not self._alone and at_the_top

    def set_alone(self, alone: bool) -> None:
        """Give the first widget all the room (the other one isn't shown), or its share again."""
        self._alone = alone
        self._apply()

    @property
    def _room(self) -> int:
        return self.size.height if self._vertical else self.size.width

    @property
    def share(self) -> float:
        if self._share is not None:
            return self._share
        return self._usual(self._room) / max(1, self._room) if self._usual is not None else 0.5

    def _apply(self) -> None:
        size = self._room
        cells = min(max(round(size * self.share), self._least), max(self._least, size - self._least))
        if self._vertical:
            self._first.styles.height = "1fr" if self._alone else cells
        else:
            self._first.styles.width = "1fr" if self._alone else cells
        self._divider.display = not self._vertical and not self._alone

    def move_to(self, place: int) -> None:
        """Put the border at a column (or row) of this widget."""
        self._move(place / max(1, self._room))

    def _move(self, share: float) -> None:
        self._share = min(0.9, max(0.1, share))
        self._apply()
        self.post_message(self.Moved(self, self._share))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Only the keys of its own direction: those of the other one are for the panes around it."""
        return not self._alone and action in (("up", "down") if self._vertical else ("left", "right"))

    def action_left(self) -> None:
        self._move(self.share - 0.04)

    def action_right(self) -> None:
        self._move(self.share + 0.04)

    action_up, action_down = action_left, action_right


class Divider(Widget):
    """The line between two panes; it can be dragged."""

    ALLOW_SELECT = False

    DEFAULT_CSS = """
    Divider { width: 1; height: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._dragged = False

    def render_line(self, y: int) -> Strip:
        ascii_only = bool(getattr(getattr(self.app, "options", None), "ascii", False))
        sign = "|" if ascii_only else ("┬" if y == 0 else "│")
        ink = "primary" if self._dragged or self.mouse_hover else "faint"
        return to_strip(line((sign, ink)), palette_of(self.app), 1).apply_style(self.rich_style)

    def on_enter(self) -> None:
        self._repaint()

    def on_leave(self) -> None:
        self._repaint()

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._dragged = True
        self.capture_mouse()
        event.stop()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self._dragged = False
        self.release_mouse()
        self._repaint()
        event.stop()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._dragged and isinstance(self.parent, Split):
            self.parent.move_to(int(event.screen_x) - self.parent.region.x)

    def _repaint(self) -> None:
        self.refresh(Region(0, 0, 1, self.size.height))
