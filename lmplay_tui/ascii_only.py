"""`--ascii`: whatever is drawn, by lmplay or by Textual, leaves as ASCII. Widgets choose better signs where they do."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_ALIKE: Final = {
    sign: plain
    for signs, plain in (
        ("─━╌┄┈═▔▁·–—−", "-"),
        ("│┃┆┊║▏▕▎▍", "|"),
        ("┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛╸", "+"),
        ("█▉▊▋▌▐▀▄▂▃▅▆▇░▒▓", "#"),
        ("●•■◆★", "*"),
        ("…", "~"),
        ("✓", "+"),
        ("✗×", "x"),
        ("←◀", "<"),
        ("→▶▸⏎", ">"),
        ("↑▲▴⇧", "^"),
        ("↓▼▾", "v"),
        ("␣", "_"),
        ("“”„", '"'),
        ("‘’", "'"),
        ("\xa0", " "),
    )
    for sign in signs
}


@lru_cache(4096)
def to_ascii(text: str) -> str:
    """The text in as many cells, of ASCII characters only: what has no likeness becomes question marks."""
    if text.isascii():
        return text
    return "".join(
        character if character.isascii() else _ALIKE.get(character, "?" * cell_len(character)) for character in text
    )


class AsciiOnly(LineFilter):
    """The last filter of every line that Textual sends."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]
