"""A table: rows with a key, a cursor that stays on its row when rows are re-sorted, marks, and a head that sorts.

All lists of the workbench are this widget. Ten thousand rows cost no more than those in view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lmplay_tui.actions import bindings_for
from lmplay_tui.columns import GAP, Column, layout_columns
from lmplay_tui.lines import Line, fitted, line, plain, to_strip, width_of, wrapped
from lmplay_tui.theme import palette_of


@dataclass(frozen=True)
class Row:
    """One row: a cell a column. `ink` lies under all of it; `heading` rows can't be chosen."""

    key: str
    cells: tuple[Line, ...]
    ink: str = ""
    heading: bool = False


class Grid(ScrollView, can_focus=True):
    """`show(rows)` sets the content, `Highlighted` and `Chosen` tell what a person does with it."""

    DEFAULT_CSS = """
    Grid { height: 1fr; width: 1fr; scrollbar-size: 1 1; overflow-x: hidden; background: transparent; }
    """
    BINDINGS = bindings_for("grid")
    ALLOW_SELECT = False
    HELP = (
        "A list. Move with the arrow keys; enter or a double click opens a row, a click on a title sorts by it. "
        "The cursor stays on its row."
    )

    cursor: reactive[str | None] = reactive(None)

    @dataclass
    class Highlighted(Message):
        """The cursor went to another row."""

        grid: Grid
        key: str

        @property
        def control(self) -> Grid:
            return self.grid

    @dataclass
    class Chosen(Message):
        """Enter, or a double click."""

        grid: Grid
        key: str

        @property
        def control(self) -> Grid:
            return self.grid

    @dataclass
    class TitleClicked(Message):
        """A click on the title of a column that can be sorted by."""

        grid: Grid
        column: str

        @property
        def control(self) -> Grid:
            return self.grid

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        empty: str = "",
        id: str | None = None,
        classes: str | None = None,
        head: bool = True,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._columns = tuple(columns)
        self._rows: tuple[Row, ...] = ()
        self._places: dict[str, int] = {}
        self._needed: list[int] = [0] * len(self._columns)
        self._widths: list[int] = [0] * len(self._columns)
        self._empty = empty
        self._head = 1 if head else 0
        self.sort: tuple[str, bool] | None = None
        """(column, descending): for the arrow beside its title; whoever shows the rows sorts them."""

    @property
    def rows(self) -> tuple[Row, ...]:
        return self._rows

    @property
    def cursor_row(self) -> int | None:
        return None if self.cursor is None else self._places.get(self.cursor)

    def show(self, rows: Sequence[Row], *, empty: str | None = None) -> None:
        """Replace the rows. The cursor stays on its key, or near its place when that row is gone."""
        before, place = self._rows, self.cursor_row
        self._rows = tuple(rows)
        self._places = {row.key: index for index, row in enumerate(self._rows)}
        if empty is not None and empty != self._empty:
            self._empty = empty
            self.refresh()
        shape_changed = self._measure()
        if len(before) != len(self._rows):
            self.virtual_size = Size(0, len(self._rows) + self._head)
        if shape_changed or (not before) != (not self._rows):
            self.refresh()
        else:
            self._refresh_changed(before)
        if self.cursor not in self._places:
            self.cursor = self._nearest_choice(place or 0)
        elif place is not None and place != self.cursor_row:
            # Re-sorted under the cursor: the row is kept in view at the height where it was.
            self.scroll_to(y=self.scroll_offset.y + (self.cursor_row or 0) - place, animate=False, force=True)

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Other columns; the rows must be shown anew."""
        self._columns = tuple(columns)
        self._needed, self._widths = [0] * len(columns), [0] * len(columns)
        self._rows, self._places = (), {}
        self.refresh()

    def move_to(self, key: str) -> None:
        """To a row; of a heading, or what goes on from the row above it, to that row."""
        if key in self._places:
            self.cursor = self._nearest_choice(self._places[key], -1)

    # ---- drawing ------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        palette, width = palette_of(self.app), self.size.width
        if self._head and y == 0:
            return to_strip(self._title_line(), palette, width).apply_style(self.rich_style)
        if not self._rows:
            words = wrapped(self._empty, max(10, width - 2), "muted")
            place = y - self._head
            content = line(" ", *words[place]) if 0 <= place < len(words) else ()
            return to_strip(content, palette, width).apply_style(self.rich_style)
        place = y - self._head + self.scroll_offset.y
        if place >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[place]
        under = row.ink
        if row.key == self.cursor and not row.heading:
            under = f"{under} cursor" if self.has_focus else f"{under} selected"
        return to_strip(self._row_line(row), palette, self._room, under=under).apply_style(self.rich_style)

    def _row_line(self, row: Row) -> Line:
        if row.heading:
            return row.cells[0]
        found: list[tuple[str, str]] = []
        for cell, column, width in zip(row.cells, self._columns, self._widths, strict=True):
            if width:
                found += ([(" " * GAP, "")] if found else []) + list(
                    fitted(cell, width, align=column.align, ends=column.ends)
                )
        return (("", ""), *found)

    def _title_line(self) -> Line:
        found: list[tuple[str, str]] = []
        for column, width in zip(self._columns, self._widths, strict=True):
            if not width:
                continue
            title = column.title
            if self.sort is not None and self.sort[0] == column.key:
                title += "▾" if self.sort[1] else "▴"
            ink = "accent" if self.sort is not None and self.sort[0] == column.key else "muted"
            found += [(" " * GAP, "")] if found else []
            found += list(fitted(line((title, ink)), width, align=column.align))
        return tuple(found)

    def _measure(self) -> bool:
        """Fit the columns to the content; they only grow while the table is shown, so that nothing jumps."""
        needed = [
            max(
                [self._needed[index], len(column.title) + column.sortable]
                + [width_of(row.cells[index]) for row in self._sample() if not row.heading]
            )
            for index, column in enumerate(self._columns)
        ]
        self._needed = needed
        widths = layout_columns(self._columns, needed, self._room)
        changed, self._widths = widths != self._widths, widths
        return changed

    def _sample(self) -> tuple[Row, ...]:
        """The rows that decide on widths: all of a short list, of a long one those around the view."""
        if len(self._rows) <= 500:
            return self._rows
        top = self.scroll_offset.y
        return self._rows[max(0, top - 50) : top + 200]

    def _refresh_changed(self, before: tuple[Row, ...]) -> None:
        top = self.scroll_offset.y
        for y in range(self._head, self.size.height):
            place = top + y - self._head
            old = before[place] if place < len(before) else None
            new = self._rows[place] if place < len(self._rows) else None
            if old != new:
                self._refresh_y(y)

    def _refresh_y(self, y: int) -> None:
        if 0 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    @property
    def _room(self) -> int:
        """Cells beside the scrollbar, where there is one."""
        return self.scrollable_content_region.width

    def watch_show_vertical_scrollbar(self) -> None:
        self._measure()
        self.refresh()

    def on_resize(self) -> None:
        self.virtual_size = Size(0, len(self._rows) + self._head)
        self._measure()
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    # ---- the cursor -----------------------------------------------------------------------------------------------

    def watch_cursor(self, before: str | None, key: str | None) -> None:
        top = self.scroll_offset.y
        for one in (before, key):
            place = self._places.get(one) if one is not None else None
            if place is not None:
                self._refresh_y(place - top + self._head)
        if key is not None and key in self._places:
            self._bring_into_view(self._places[key])
            self.post_message(self.Highlighted(self, key))

    def _bring_into_view(self, place: int) -> None:
        top, room = self.scroll_offset.y, max(1, self.size.height - self._head)
        if place < top:
            # The heading above the first row is shown with it.
            self.scroll_to(y=0 if place <= 1 else place, animate=False, force=True)
        elif place >= top + room:
            self.scroll_to(y=place - room + 1, animate=False, force=True)

    def _move(self, step: int) -> None:
        if not self._rows:
            return
        place = self.cursor_row
        target = 0 if place is None else min(max(place + step, 0), len(self._rows) - 1)
        key = self._nearest_choice(target, 1 if step > 0 else -1)
        if key is not None:
            self.cursor = key

    def _nearest_choice(self, place: int, direction: int = 1) -> str | None:
        """The key of the row at `place`, or of the next one that is no heading."""
        if not self._rows:
            return None
        place = min(place, len(self._rows) - 1)
        onwards = range(place, len(self._rows)) if direction > 0 else range(place, -1, -1)
        back = range(place, -1, -1) if direction > 0 else range(place, len(self._rows))
        return next((self._rows[index].key for index in (*onwards, *back) if not self._rows[index].heading), None)

    def action_up(self) -> None:
        self._move(-1)

    def action_down(self) -> None:
        self._move(1)

    def action_page_up(self) -> None:
        self._move(-max(1, self.size.height - 2))

    def action_page_down(self) -> None:
        self._move(max(1, self.size.height - 2))

    def action_first(self) -> None:
        self._move(-len(self._rows))

    def action_last(self) -> None:
        self._move(len(self._rows))

    def action_choose(self) -> None:
        if self.cursor is not None:
            self.post_message(self.Chosen(self, self.cursor))

    def copied(self) -> str:
        """What is copied of a list: the row under the cursor."""
        place = self.cursor_row
        return "" if place is None else "\t".join(filter(None, map(plain, self._rows[place].cells))).strip()

    def on_focus(self) -> None:
        self._refresh_y((self.cursor_row or 0) - self.scroll_offset.y + self._head)

    def on_blur(self) -> None:
        self._refresh_y((self.cursor_row or 0) - self.scroll_offset.y + self._head)

    def on_click(self, event: events.Click) -> None:
        y = event.y - self.gutter.top
        if self._head and y == 0:
            column = self._column_at(event.x - self.gutter.left)
            if column is not None and column.sortable:
                self.post_message(self.TitleClicked(self, column.key))
            return
        place = y - self._head + self.scroll_offset.y
        if 0 <= place < len(self._rows) and not self._rows[place].heading:
            key = self._rows[place].key
            if key == self.cursor and event.chain == 2:
                self.post_message(self.Chosen(self, key))
            self.cursor = key

    def _column_at(self, x: int) -> Column | None:
        left = 0
        for column, width in zip(self._columns, self._widths, strict=True):
            if width and left <= x < left + width + GAP:
                return column
            left += width + GAP if width else 0
        return None
