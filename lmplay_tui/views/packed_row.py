"""A packed row as the model meets it: its documents in colours, their borders, and which tokens are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from lmplay_tui.lines import Line, line, printable
from lmplay_tui.services.data_facts import PackedRow
from lmplay_tui.theme import series_ink

END_OF_TEXT = "<|endoftext|>"


def row_lines(row: PackedRow, width: int, *, ascii_only: bool = False) -> list[Line]:
    """Facts, a map of the row, a legend, then the text."""
    width = max(20, width - 1)
    count = {"learned": 0, "read": 0, "padding": 0}
    for span in row.spans:
        count["padding" if span["padding"] else "learned" if span["learned"] else "read"] += int(span["tokens"])
    documents = len({span["document"] for span in row.spans if not span["padding"]})
    told = f"{documents} document{'s' if documents != 1 else ''}: {count['learned']:,} tokens learned"
    told += f", {count['read']:,} read only" if count["read"] else ""
    told += f", {count['padding']:,} padding" if count["padding"] else ""
    head = f"{row.dataset}, row {row.number:,} of {row.rows:,}"
    return [
        line((head, "bold"), (f"  {row.packing}, {row.length:,} tokens", "muted")),
        line((told, "muted")),
        row_map(row, min(width, 100), ascii_only=ascii_only),
        _legend(ascii_only=ascii_only),
        (),
        *_text(row, width, ascii_only=ascii_only),
    ]


def _signs(*, ascii_only: bool) -> tuple[str, str, str]:
    """(learned, read only, padding): told apart by their height, not by colour alone."""
    return ("#", "-", ".") if ascii_only else ("█", "▂", "·")


def row_map(row: PackedRow, width: int, *, ascii_only: bool = False) -> Line:
    """The row from its first to its last token, drawn to scale."""
    learned, read, padding = _signs(ascii_only=ascii_only)
    total = sum(int(span["tokens"]) for span in row.spans) or 1
    spans: list[tuple[str, str]] = []
    place, drawn = 0, 0
    for span in row.spans:
        place += int(span["tokens"])
        cells = round(place / total * width) - drawn
        drawn += cells
        if cells > 0:
            sign = padding if span["padding"] else learned if span["learned"] else read
            spans.append((sign * cells, "faint" if span["padding"] else _ink(span)))
    return tuple(spans)


def _legend(*, ascii_only: bool) -> Line:
    learned, read, padding = _signs(ascii_only=ascii_only)
    end = END_OF_TEXT if ascii_only else "¶"
    return line(
        (f"{learned} learned  {read} ", "muted"),
        ("read only", "muted italic"),
        (f"  {padding} padding  {end} end of text", "muted"),
    )


def _ink(span: Mapping[str, Any]) -> str:
    return series_ink(int(span["document"]), dim=not span["learned"])


def _text(row: PackedRow, width: int, *, ascii_only: bool) -> list[Line]:
    """The text of all documents, each under a rule with its number."""
    lines: list[Line] = []
    shown = -1
    parts: list[tuple[str, str]] = []
    for span in row.spans:
        if span["padding"]:
            lines += _flowed(parts, width)
            parts = []
            tokens = int(span["tokens"])
            lines.append(_rule(f"{tokens:,} token{'s' if tokens != 1 else ''} of padding", width, "muted", ascii_only))
            continue
        if span["document"] != shown:
            lines += _flowed(parts, width)
            parts, shown = [], span["document"]
            size = sum(int(one["tokens"]) for one in row.spans if one["document"] == shown and not one["padding"])
            title = f"document {shown + 1}, {size:,} tokens here"
            lines.append(_rule(title, width, series_ink(int(shown)), ascii_only))
        text = str(span["text"])
        # What isn't learned is grey and slanted: readable, and told apart without colours.
        ink = _ink(span) if span["learned"] else "muted italic"
        parts.append((text if ascii_only else text.replace(END_OF_TEXT, "¶"), ink))
    return [*lines, *_flowed(parts, width)]


def _rule(title: str, width: int, ink: str, ascii_only: bool) -> Line:
    dash = "-" if ascii_only else "─"
    head = f"{dash * 2} {title} "
    return line((head, f"bold {ink}"), (dash * max(0, width - len(head)), ink))


def _flowed(parts: Sequence[tuple[str, str]], width: int) -> list[Line]:
    """The text in lines of `width` cells, broken where it has line ends and where it has to."""
    lines: list[Line] = []
    current: list[tuple[str, str]] = []
    room = width
    for text, ink in parts:
        for index, paragraph in enumerate(text.expandtabs(4).split("\n")):
            if index:
                lines.append(tuple(current))
                current, room = [], width
            rest = printable(paragraph)
            while rest:
                head = _fitting(rest, room, fresh=room == width)
                if head:
                    current.append((head, ink))
                    room -= cell_len(head)
                rest = rest[len(head) :]
                if rest:
                    lines.append(tuple(current))
                    current, room = [], width
    if current:
        lines.append(tuple(current))
    return lines


def _fitting(text: str, room: int, *, fresh: bool) -> str:
    """As much of a text as fits, broken after a blank where one is near the end; nothing where a word had to be broken
    that a fresh line may hold.
    """
    if cell_len(text) <= room:
        return text
    size = end = 0
    for end, character in enumerate(text):  # noqa: B007 - where it ends is what is asked
        size += cell_len(character)
        if size > room:
            break
    blank = text.rfind(" ", max(0, end - 16), end)
    if blank > 0:
        return text[: blank + 1]
    return text[:end] if fresh else ""
