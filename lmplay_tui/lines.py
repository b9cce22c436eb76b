"""Text with inks, a line at a time: what widgets are given to show. Plain data, to be tested and compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from lmplay_tui.theme import Palette

Span = tuple[str, str]
"""(text, ink)"""
Line = tuple[Span, ...]
EMPTY: Line = ()
ELLIPSIS = "…"


def line(*parts: Span | str) -> Line:
    """A line of spans; a bare text has the ink of the widget."""
    return tuple(part if isinstance(part, tuple) else (part, "") for part in parts if part)


def plain(content: Line) -> str:
    return "".join(text for text, _ in content)


def width_of(content: Line) -> int:
    return sum(cell_len(text) for text, _ in content)


def fitted(content: Line, width: int, *, align: str = "left", ends: bool = False) -> Line:
    """Exactly `width` cells: cut with an ellipsis, or filled with blanks on the side that `align` leaves.

    With `ends`, both ends of what is too long are kept: names that begin alike are told by their ends.
    """
    if width <= 0:
        return ()
    size = width_of(content)
    if size > width:
        return _without_middle(content, width) if ends else _cut(content, width)
    blanks = " " * (width - size)
    if not blanks:
        return content
    return ((blanks, ""), *content) if align == "right" else (*content, (blanks, ""))


def _without_middle(content: Line, width: int) -> Line:
    """Cells taken out of the longest text of a line."""
    longest = max(range(len(content)), key=lambda index: cell_len(content[index][0]))
    text, ink = content[longest]
    room = cell_len(text) - (width_of(content) - width) - 1
    if room < 4:
        return _cut(content, width)
    tail = room * 2 // 5
    end = set_cell_size(text[::-1], tail)[::-1]
    return (*content[:longest], (f"{set_cell_size(text, room - tail)}{ELLIPSIS}{end}", ink), *content[longest + 1 :])


def _cut(content: Line, width: int) -> Line:
    kept: list[Span] = []
    room = width - cell_len(ELLIPSIS)
    if room < 0:
        return ((set_cell_size(plain(content), width), ""),)
    for text, ink in content:
        size = cell_len(text)
        if size >= room:
            cut = set_cell_size(text, room)
            kept.append((cut + ELLIPSIS, ink))
            break
        kept.append((text, ink))
        room -= size
    return tuple(kept)


def spread(left: Line, right: Line, width: int) -> Line:
    """`left` at the left and `right` at the right end of `width` cells; where both don't fit, the left one is cut."""
    room = width - width_of(right) - 2
    if room < 1:
        return fitted(right, width)
    return (*fitted(left, room), ("  ", ""), *right)


def joined(parts: Iterable[Line], separator: Span) -> Line:
    found: list[Span] = []
    for part in parts:
        if part:
            found += ([separator] if found else []) + list(part)
    return tuple(found)


def wrapped(text: str, width: int, ink: str = "") -> list[Line]:
    """Paragraphs of `text` as lines of at most `width` cells, broken at blanks where there are any."""
    found: list[Line] = []
    for paragraph in text.splitlines() or [""]:
        words, current, size = paragraph.split(" "), "", 0
        for word in words:
            length = cell_len(word)
            if current and size + 1 + length > width:
                found.append(line((current, ink)))
                current, size = "", 0
            while length > width > 0:
                head = _head(word, width)
                found.append(line((head, ink)))
                word = word[len(head) :]
                length = cell_len(word)
            current = f"{current} {word}" if current else word
            size = cell_len(current)
        found.append(line((current, ink)))
    return found


def rewrapped(content: Line, width: int) -> list[Line]:
    """A line with inks as lines of at most `width` cells."""
    text, end, found = plain(content), 0, []
    for part in wrapped(text, width):
        start = text.index(plain(part), end)
        end = start + len(plain(part))
        found.append(_between(content, start, end))
    return found


def _between(content: Line, start: int, end: int) -> Line:
    """The characters `start` to `end` of a line, in their inks."""
    found, place = [], 0
    for text, ink in content:
        found.append((text[max(0, start - place) : max(0, end - place)], ink))
        place += len(text)
    return line(*(span for span in found if span[0]))


def _head(word: str, width: int) -> str:
    """As much of the beginning of a word as fits, at least one character."""
    size = 0
    for place, character in enumerate(word):
        size += cell_len(character)
        if size > width and place:
            return word[:place]
    return word


def to_strip(content: Line, palette: Palette, width: int, *, under: str = "") -> Strip:
    """The line as Textual draws it, `width` cells wide; the ink `under` lies below all of it."""
    base = palette.style(under)
    shown = fitted(tuple((printable(text), ink) for text, ink in content), width)
    if base.reverse:
        # In reverse each colour would be a patch of its own: a row that is chosen has one.
        return Strip([Segment(text, base + Style(bold=palette.style(ink).bold)) for text, ink in shown if text], width)
    return Strip([Segment(text, base + palette.style(ink)) for text, ink in shown if text], width)


def printable(text: str) -> str:
    """The text without control characters: nothing that a model or a log wrote may steer the terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "�" for character in text)


def facts(
    pairs: Sequence[tuple[str, str | Line]], *, name_width: int | None = None, width: int | None = None
) -> list[Line]:
    """`name  value` lines with the values in one column; pairs without a value are left out.

    Values that take more than the `width` of a line go on below themselves.
    """
    shown = [(name, line(value) if isinstance(value, str) else value) for name, value in pairs if value]
    names = name_width or max((len(name) for name, _ in shown), default=0)
    found: list[Line] = []
    for name, value in shown:
        parts = [value] if width is None else rewrapped(value, max(10, width - names - 2))
        found += [(*line((f"{'' if index else name:<{names}}  ", "muted")), *part) for index, part in enumerate(parts)]
    return found
