"""Lines of text with inks: facts, logs, legends, headers. Showing new lines repaints those that differ."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from lmplay_tui.lines import Line, plain, to_strip, width_of
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
        self._at_end = True
        """As a person left it: more lines, or fewer rows to show them in, don't take it from the end."""
        self._measure()

    @property
    def lines(self) -> Sequence[Line]:
        return self._lines

    def show(self, lines: Sequence[Line]) -> None:
        """Replace the content by lines that won't change; only rows that differ are sent to the terminal."""
        before, self._lines = self._lines, lines
        at_end = self._at_end
        if len(before) != len(self._lines) or self._wide:
            self._measure()
        if len(before) != len(self._lines) and self.styles.height is not None and self.styles.height.is_auto:
            self.refresh(layout=True)
        else:
            top = self.scroll_offset.y
            for row in range(self.size.height):
                place = top + row
                if _at(before, place) != _at(self._lines, place):
                    self.refresh(Region(0, row, self.size.width, 1))
        if self.follow and at_end:
            # In this very frame: one later, each line that is added would have all rows sent twice.
            self.scroll_end(animate=False, force=True, immediate=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._at_end = new_value >= self.max_scroll_y - 1

    def on_resize(self) -> None:
        if self.follow and self._at_end:
            self.scroll_end(animate=False, force=True)

    def mark(self, place: int | None) -> None:
        """Show one line as found, or none any more; another mark takes its place."""
        for row in (self._marked, place):
            if row is not None:
                self.refresh(Region(0, row - self.scroll_offset.y, self.size.width, 1))
        self._marked = place

    def show_marked(self, place: int, column: int = 0) -> None:
        """Mark a line and bring it into view; of a line that is wider than the view, the part about `column`."""
        self.mark(place)
        top, height = self.scroll_offset.y, max(1, self.size.height)
        if not top <= place < top + height:
            self.scroll_to(y=max(0, place - height // 2), animate=False, force=True)
        left, width = self.scroll_offset.x, max(1, self.size.width)
        if self._wide and not left <= column < left + width * 3 // 4:
            self.scroll_to(x=max(0, column - width // 2), animate=False, force=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        return len(self._lines)

    def get_content_width(self, container: Size, viewport: Size) -> int:  # noqa: ARG002
        return max((width_of(line) for line in self._lines), default=0)

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        width = self.size.width
        content = _at(self._lines, top + y)
        under = "selected" if self._marked == top + y else ""
        if left:
            everything = max(left + width, width_of(content))
            strip = to_strip(content, palette_of(self.app), everything, under=under).crop(left, left + width)
        else:
            beside_scrollbar = self.scrollable_content_region.width
            strip = to_strip(content, palette_of(self.app), beside_scrollbar, under=under)
        strip = self._with_selection(strip, left, top + y).apply_style(self.rich_style)
        return strip.apply_offsets(left, top + y)  # by which Textual knows what the mouse selects

    # ---- selecting, by mouse or all of it ----------------------------------------------------------------------------

    def copied(self) -> str:
        """What is copied when nothing is selected: all of it."""
        return "\n".join(map(plain, self._lines)).strip("\n")

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        spans = ((content, selection.get_span(place)) for place, content in enumerate(self._lines))
        parts = [plain(content)[span[0] : None if span[1] < 0 else span[1]] for content, span in spans if span]
        return "\n".join(parts), "\n"

    def selection_updated(self, selection: Selection | None) -> None:  # noqa: ARG002
        self.refresh()

    def _with_selection(self, strip: Strip, left: int, place: int) -> Strip:
        """The part of a line that is selected looks so; `left` characters of it are scrolled away."""
        span = self.text_selection.get_span(place) if self.text_selection is not None else None
        if span is None:
            return strip
        text, width = strip.text, strip.cell_length
        first, last = max(0, span[0] - left), len(text) if span[1] < 0 else max(0, span[1] - left)
        cuts = sorted({cell_len(text[:first]), cell_len(text[:last]), width})
        before, *rest = strip.divide(cuts)
        ink = palette_of(self.app).style("cursor")
        if not rest:
            return before.apply_style(ink) if first == 0 else strip
        parts = [before.apply_style(ink), *rest] if first == 0 else [before, rest[0].apply_style(ink), *rest[1:]]
        return Strip.join(parts)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    def _measure(self) -> None:
        width = max((width_of(line) for line in self._lines), default=0) if self._wide else 0
        self.virtual_size = Size(width, len(self._lines))


def _at(lines: Sequence[Line], place: int) -> Line:
    return lines[place] if 0 <= place < len(lines) else ()
