"""An answer token by token: how sure the model was of each, and what else it might have said there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from textual import events
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lmplay_tui.actions import bindings_for
from lmplay_tui.figures import progress_bar
from lmplay_tui.lines import Line, fitted, line, to_strip
from lmplay_tui.theme import palette_of

_ALTERNATIVES = 6


def token_text(text: str, *, ascii_only: bool = False) -> str:
    """A token as it is shown: line ends and bare blanks are made visible."""
    shown = text.replace("\n", "\\n" if ascii_only else "⏎").replace("\t", "  ")
    return shown if shown.strip() else shown.replace(" ", "_" if ascii_only else "␣")


def sureness(probability: float) -> str:
    """The ink of a token: the surer, the calmer."""
    return "" if probability >= 0.5 else "primary" if probability >= 0.1 else "warn" if probability >= 0.01 else "bad"


def wrapped_tokens(
    tokens: Sequence[Mapping[str, Any]], width: int, *, ascii_only: bool = False
) -> list[list[tuple[int, str]]]:
    """Rows of (index of the token, text), broken between tokens."""
    rows: list[list[tuple[int, str]]] = [[]]
    room = width
    for index, token in enumerate(tokens):
        text = token_text(str(token.get("text", "")), ascii_only=ascii_only) or "?"
        if cell_len(text) > width:
            text = set_cell_size(text, width)
        if cell_len(text) > room and rows[-1]:
            rows.append([])
            room = width
        rows[-1].append((index, text))
        room -= cell_len(text)
        if "\n" in str(token.get("text", "")):
            rows.append([])
            room = width
    return [row for row in rows if row]


class TokenView(ScrollView, can_focus=True):
    """`show(tokens)`; each has `text`, `probability` and `alternatives` as the engine gives them."""

    HELP = (
        "The last answer, token by token. Colours tell how sure the model was: blue below 50%, yellow below 10%, red "
        "below 1%. Below are the tokens that it might have written instead."
    )
    DEFAULT_CSS = """
    TokenView { height: 1fr; width: 1fr; scrollbar-size: 1 1; }
    """
    BINDINGS = bindings_for("tokens")

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._tokens: Sequence[Mapping[str, Any]] = ()
        self._rows: list[list[tuple[int, str]]] = []
        self.cursor = 0

    def show(self, tokens: Sequence[Mapping[str, Any]]) -> None:
        if tokens is not self._tokens:
            self._tokens, self.cursor = tokens, 0
            self._arrange()

    @property
    def _ascii(self) -> bool:
        return bool(getattr(getattr(self.app, "options", None), "ascii", False))

    @property
    def _text_height(self) -> int:
        return max(1, self.size.height - _ALTERNATIVES - 1)

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        self._rows = wrapped_tokens(self._tokens, max(4, self.size.width - 1), ascii_only=self._ascii)
        self.virtual_size = Size(0, len(self._rows) + self.size.height - self._text_height)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        content: Line = ()
        width = self.size.width
        if not self._tokens:
            content = line(("no answer yet, or none with probabilities", "muted")) if y == 0 else ()
        elif y < self._text_height:
            place = y + self.scroll_offset.y
            content = self._row(place) if place < len(self._rows) else ()
        elif y == self._text_height:
            rule = "-" if self._ascii else "─"
            content = line((rule * width, "faint"))
        else:
            content = self._alternative(y - self._text_height - 1)
        return to_strip(fitted(content, width), palette_of(self.app), width).apply_style(self.rich_style)

    def _row(self, place: int) -> Line:
        spans = []
        for index, text in self._rows[place]:
            ink = sureness(float(self._tokens[index].get("probability") or 0.0))
            spans.append((text, f"{ink} reverse bold".strip() if index == self.cursor else ink))
        return tuple(spans)

    def _alternative(self, number: int) -> Line:
        token = self._tokens[self.cursor]
        others = [one for one in token.get("alternatives") or () if one.get("token") != token.get("token")]
        listed = sorted([token, *others], key=lambda one: -float(one.get("probability") or 0.0))
        if number >= len(listed):
            return ()
        one = listed[number]
        chosen = one is token
        probability = float(one.get("probability") or 0.0)
        bar = progress_bar(probability, 16, ascii_only=self._ascii, ink="accent" if chosen else "primary")
        text = token_text(str(one.get("text", "")), ascii_only=self._ascii)
        mark = (">" if self._ascii else "▸") if chosen else " "
        return (
            *line((f"{mark} {probability:>6.1%} ", "bold" if chosen else "muted")),
            *bar,
            (f"  {text}", "bold" if chosen else ""),
        )

    def _move_to(self, cursor: int) -> None:
        if not self._tokens:
            return
        self.cursor = min(max(cursor, 0), len(self._tokens) - 1)
        row = next(place for place, tokens in enumerate(self._rows) if tokens[-1][0] >= self.cursor)
        top = self.scroll_offset.y
        if row < top or row >= top + self._text_height:
            self.scroll_to(y=max(0, row - self._text_height // 2), animate=False, force=True)
        self.refresh()

    def action_left(self) -> None:
        self._move_to(self.cursor - 1)

    def action_right(self) -> None:
        self._move_to(self.cursor + 1)

    def action_up(self) -> None:
        self._move_row(-1)

    def action_down(self) -> None:
        self._move_row(1)

    def action_first(self) -> None:
        self._move_to(0)

    def action_last(self) -> None:
        self._move_to(len(self._tokens) - 1)

    def _move_row(self, step: int) -> None:
        if not self._rows:
            return
        row = next(place for place, tokens in enumerate(self._rows) if tokens[-1][0] >= self.cursor)
        target = min(max(row + step, 0), len(self._rows) - 1)
        place = self.cursor - self._rows[row][0][0]
        tokens = self._rows[target]
        self._move_to(tokens[min(place, len(tokens) - 1)][0])

    def on_click(self, event: events.Click) -> None:
        place = event.y + self.scroll_offset.y
        if event.y < self._text_height and place < len(self._rows):
            left = 0
            for index, text in self._rows[place]:
                if left <= event.x < left + cell_len(text):
                    self._move_to(index)
                left += cell_len(text)
