"""Finding a text in the view that is in sight: in its lines, or in the rows of a list."""

from __future__ import annotations

from rich.cells import cell_len
from textual.widget import Widget

from lmplay_tui.dialogs.asking import TextDialog
from lmplay_tui.lines import plain
from lmplay_tui.screens.steering import SteeringScreen
from lmplay_tui.widgets.grid import Grid
from lmplay_tui.widgets.text_view import TextView


class FindingScreen(SteeringScreen):
    """A screen with a view that can be `searched`."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted = ""
        self._found_at = -1

    @property
    def searched(self) -> Widget:
        raise NotImplementedError

    def bring_below(self) -> None:
        """Bring that view into sight, where something else has the whole screen."""
        raise NotImplementedError

    def action_find(self) -> None:
        self.bring_below()
        self.run_worker(self._find(), group="dialog")

    async def _find(self) -> None:
        text = await self.app.push_screen_wait(
            TextDialog("Find", "In the view below; n goes on, N goes back.", value=self._wanted, selected=True)
        )
        if text:
            self._wanted, self._found_at = text, -1
            self.action_find_next()

    def action_find_next(self) -> None:
        self._find_other(1)

    def action_find_before(self) -> None:
        self._find_other(-1)

    def _find_other(self, step: int) -> None:
        self.bring_below()
        view = self.searched
        if not self._wanted:
            self.action_find()
        elif isinstance(view, TextView) and self._find_line(view, step):
            return
        elif not (isinstance(view, Grid) and self._find_row(view, step)):
            self.notify(f"{self._wanted!r} is not there", timeout=3)

    def _find_line(self, view: TextView, step: int) -> bool:
        lines = view.lines
        for place in _onwards(self._found_at, len(lines), step):
            text = plain(lines[place])
            if self._is_in(text):
                self._found_at = place
                view.show_marked(place, cell_len(text[: text.casefold().index(self._wanted.casefold())]))
                return True
        return False

    def _find_row(self, grid: Grid, step: int) -> bool:
        rows = grid.rows
        for index in _onwards(grid.cursor_row or 0, len(rows), step):
            if any(self._is_in(plain(cell)) for cell in rows[index].cells):
                grid.move_to(rows[index].key)
                return True
        return False

    def _is_in(self, text: str) -> bool:
        return bool(self._wanted) and self._wanted.casefold() in text.casefold()


def _onwards(place: int, count: int, step: int) -> list[int]:
    """All places of `count`, those next to `place` first, which may lie beyond what there is by now."""
    return [(place + step * (index + 1)) % count for index in range(count)]
