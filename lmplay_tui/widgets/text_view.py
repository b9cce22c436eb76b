"""Lines of text with inks: facts, logs, legends, headers. Showing new lines repaints those that differ."""

from __future__ import annotations

from collections.abc import Sequence

from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lmplay_tui.lines import Line, to_strip, width_of
from lmplay_tui.theme import palette_of


class TextView(ScrollView):
    """`show(lines)` sets the content. With `follow`, a view at its end stays at the end while lines are added."""

    DEFAULT_CSS = """
    TextView { height: auto; width: 1fr; scrollbar-size: 1 1; background: transparent; }
    """

    def __init__(
        self,
        lines: Sequence[Line] = (),
        *,
        id: str | None = None,
        classes: str | None = None,
        focusable: bool = False,
        follow: bool = False,
        wide: bool = False,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.can_focus = focusable
        self.follow = follow
        self._wide = wide
        """Scrolls sideways; otherwise lines are cut at the right edge."""
        self._lines: Sequence[Line] = lines
        self._marked: int | None = None
        self._measure()

    @property
    def lines(self) -> Sequence[Line]:
        return self._lines

    def show(self, lines: Sequence[Line]) -> None:
        """Replace the content by lines that won't change; only rows that differ are sent to the terminal."""
        before, self._lines = self._lines, lines
        at_end = self.scroll_offset.y >= self.max_scroll_y - 1
        if len(before) != len(self._lines) or self._wide:
            self._measure()
        if len(before) != len(self._lines) and self.styles.height is not None and self.styles.height.is_auto:
            self.refresh(layout=True)
        elif self.follow and at_end and len(before) != len(self._lines):
            self.refresh()
        else:
            top = self.scroll_offset.y
            for row in range(self.size.height):
                place = top + row
                if _at(before, place) != _at(self._lines, place):
                    self.refresh(Region(0, row, self.size.width, 1))
        if self.follow and at_end:
            self.scroll_end(animate=False, force=True)

    def mark(self, place: int | None) -> None:
        """Show one line as found, or none any more; another mark takes its place."""
        for row in (self._marked, place):
            if row is not None:
                self.refresh(Region(0, row - self.scroll_offset.y, self.size.width, 1))
        self._marked = place

    def show_marked(self, place: int) -> None:
        """Mark a line and bring it into view."""
        self.mark(place)
        top, height = self.scroll_offset.y, max(1, self.size.height)
        if not top <= place < top + height:
            self.scroll_to(y=max(0, place - height // 2), animate=False, force=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        return len(self._lines)

    def get_content_width(self, container: Size, viewport: Size) -> int:  # noqa: ARG002
        return max((width_of(line) for line in self._lines), default=0)

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        width = self.size.width
        content = _at(self._lines, top + y)
        if left:
            strip = to_strip(content, palette_of(self.app), width_of(content)).crop(left, left + width)
            strip = strip.adjust_cell_length(width)
        else:
            under = "selected" if self._marked == top + y else ""
            strip = to_strip(content, palette_of(self.app), width, under=under)
        return strip.apply_style(self.rich_style)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    def _measure(self) -> None:
        width = max((width_of(line) for line in self._lines), default=0) if self._wide else 0
        self.virtual_size = Size(width, len(self._lines))


def _at(lines: Sequence[Line], place: int) -> Line:
    return lines[place] if 0 <= place < len(lines) else ()
