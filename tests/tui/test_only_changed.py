"""What is sent to the terminal of what changed."""

from __future__ import annotations

import asyncio
import io
from collections import Counter

from rich.console import Console
from rich.segment import Segment
from textual.app import App, ComposeResult
from textual.strip import Strip

from lmplay_tui.lines import line
from lmplay_tui.only_changed import ExactUpdate
from lmplay_tui.widgets.text_view import TextView


def sent(spans: list[tuple[int, int, int]]) -> str:
    """Of two rows, each drawn by two widgets side by side, what is written for these stretches."""
    rows = [{0: Strip([Segment("abcdefghij")]), 10: Strip([Segment("klm"), Segment("nopqrst")])} for _ in range(2)]
    return ExactUpdate(rows, spans, [[10, 20], [10, 20]]).render_segments(Console(file=io.StringIO()))


def test_a_stretch_is_sent_from_its_first_cell_to_its_last() -> None:
    assert sent([(0, 4, 7)]) == "\x1b[1;5Hefg"
    assert sent([(0, 0, 10)]) == "\x1b[1;1Habcdefghij", "the neighbour isn't touched"
    assert sent([(1, 8, 12)]) == "\x1b[2;9Hij\x1b[2;11Hkl"
    assert sent([(0, 19, 20), (1, 12, 14)]) == "\x1b[1;20Ht\x1b[2;13Hmn"


class _Following(App[None]):
    def compose(self) -> ComposeResult:
        self.log_view = _Counted(follow=True)
        self.log_view.styles.height = 10
        yield self.log_view


class _Counted(TextView):
    def __init__(self, *, follow: bool) -> None:
        self.drawn: Counter[int] = Counter()
        super().__init__(follow=follow)

    def render_line(self, y: int) -> Strip:
        self.drawn[y] += 1
        return super().render_line(y)


def test_a_line_more_at_the_end_of_a_log_draws_each_row_once() -> None:
    async def scenario() -> None:
        app = _Following()
        async with app.run_test(size=(60, 20)) as pilot:
            lines = [line(f"line {number}") for number in range(40)]
            app.log_view.show(lines)
            await pilot.pause()
            await pilot.pause()
            assert app.log_view.scroll_offset.y == 30
            app.log_view.drawn.clear()
            app.log_view.show([*lines, line("one more")])
            await pilot.pause()
            await pilot.pause()
            assert app.log_view.scroll_offset.y == 31
            assert set(app.log_view.drawn.values()) == {1}
            assert "one more" in app.log_view.render_line(9).text

    asyncio.run(scenario())
