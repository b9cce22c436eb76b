"""Colours: lmplay's own light and dark themes, and inks, the words by which widgets ask for a style.

An ink is one or more words: `muted`, `bold accent`, `s2` for the third series, `s2 dim`. Widgets know no colours, so
every theme of Textual and the sixteen colours of a plain terminal work alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rich.style import Style
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

if TYPE_CHECKING:
    from textual.app import App

NUM_SERIES: Final = 8
_LEAST_CONTRAST: Final = 3.1
"""Of an ink on whatever it may lie on: WCAG 2.2 asks 3:1 of large text and of signs, and colours round to bytes."""
_TEXT_CONTRAST: Final = 7.0
"""Of plain text on the row of the cursor: what WCAG 2.2 asks of text at its strictest (AAA)."""

DARK = Theme(
    name="lmplay-dark",
    primary="#5aa9e6",
    secondary="#b18cf0",
    accent="#f2b35d",
    success="#5fd38d",
    warning="#f0c05a",
    error="#f67d75",
    foreground="#d8dce6",
    background="#0f1218",
    surface="#151922",
    panel="#1e2430",
    dark=True,
    variables={
        "border": "#39424f",
        "border-blurred": "#2a313d",
        "block-cursor-background": "#1d3850",
        "block-cursor-foreground": "#f2f5fa",
        "block-cursor-text-style": "none",
        "input-selection-background": "#2f5f8f",
    },
)
LIGHT = Theme(
    name="lmplay-light",
    primary="#155f9c",
    secondary="#7a45c4",
    accent="#8a5200",
    success="#177040",
    warning="#835600",
    error="#c0342b",
    foreground="#20242c",
    background="#fbfbf9",
    surface="#f2f2ee",
    panel="#e8e9e4",
    dark=False,
    variables={
        "border": "#b4b8bd",
        "border-blurred": "#d2d4d3",
        "block-cursor-background": "#d9e9f7",
        "block-cursor-foreground": "#101318",
        "block-cursor-text-style": "none",
        "input-selection-background": "#b7d6f2",
    },
)
# The lines between panes are black on black, or white on white, in the ones that Textual brings.
_ANSI = tuple(
    replace(theme, variables={**theme.variables, "border": "ansi_bright_black", "border-blurred": "ansi_bright_black"})
    for theme in (BUILTIN_THEMES["ansi-dark"], BUILTIN_THEMES["ansi-light"])
)
OWN_THEMES = (DARK, LIGHT, *_ANSI)

# Told apart by people with any of the common forms of colour blindness (after Okabe and Ito), lightness adapted.
_SERIES_DARK = ("#56b4e9", "#f0a340", "#4cc9a0", "#f67d75", "#c39bf0", "#e8dc6a", "#f49ac1", "#9aa5b1")
_SERIES_LIGHT = ("#1767a5", "#9a5600", "#0a7052", "#b8352b", "#7a45c4", "#6c6100", "#b03a74", "#5c6670")
# A terminal's bright colours, its white and its yellow can't be read on its light background.
_SERIES_ANSI_DARK = ("bright_cyan", "yellow", "green", "red", "magenta", "bright_yellow", "bright_magenta", "white")
_SERIES_ANSI_LIGHT = ("blue", "red", "green", "magenta", "cyan", "bright_black", "bright_red", "black")

_ANSI_INKS = {
    "muted": Style(dim=True),
    "faint": Style(dim=True),
    "good": Style(color="green"),
    "bad": Style(color="red"),
    "cursor": Style(reverse=True),
    "selected": Style(reverse=True),
    "bar": Style(),
}
_ANSI_DARK_INKS = {
    "accent": Style(color="yellow"),
    "primary": Style(color="cyan"),
    "second": Style(color="magenta"),
    "warn": Style(color="yellow"),
    "key": Style(color="yellow", bold=True),
}
_ANSI_LIGHT_INKS = {
    "accent": Style(color="magenta"),
    "primary": Style(color="blue"),
    "second": Style(color="cyan"),
    "warn": Style(color="magenta"),
    "key": Style(color="blue", bold=True),
}
_ATTRIBUTES = {
    "bold": Style(bold=True),
    "italic": Style(italic=True),
    "underline": Style(underline=True),
    "reverse": Style(reverse=True),
    "strike": Style(strike=True),
}


class Palette:
    """Inks as styles, for one theme. `style("bold accent")`; unknown words are a mistake in the code."""

    def __init__(self, variables: dict[str, str], *, dark: bool, ansi: bool) -> None:
        self._ansi = ansi
        self._cache: dict[str, Style] = {"": Style()}
        self._words = dict(_ATTRIBUTES)
        if ansi:
            self._words |= _ANSI_INKS | (_ANSI_DARK_INKS if dark else _ANSI_LIGHT_INKS)
            colours = _SERIES_ANSI_DARK if dark else _SERIES_ANSI_LIGHT
            self._words |= {f"s{index}": Style(color=name) for index, name in enumerate(colours)}
            self._words["dim"] = Style(dim=True)
            return
        self._background = Color.parse(variables["background"])
        text = Color.parse(variables["foreground"])
        bar = Color.parse(variables["panel"])
        cursor = self._under(text, Color.parse(variables["block-cursor-background"]))
        pole = Color(255, 255, 255) if dark else Color(0, 0, 0)
        grounds = (self._background, Color.parse(variables["surface"]), bar, cursor)
        named = {
            "muted": self._mixed(text, 0.74),
            "faint": self._mixed(text, 0.30),
            "accent": Color.parse(variables["accent"]),
            "primary": Color.parse(variables["primary"]),
            "second": Color.parse(variables["secondary"]),
            "good": Color.parse(variables["success"]),
            "warn": Color.parse(variables["warning"]),
            "bad": Color.parse(variables["error"]),
        }
        series = _SERIES_DARK if dark else _SERIES_LIGHT
        named |= {f"s{index}": Color.parse(colour) for index, colour in enumerate(series)}
        named = {
            word: _readable(colour, grounds, pole) if word != "faint" else colour for word, colour in named.items()
        }
        self._colours = named
        self._words |= {word: Style(color=colour.rich_color) for word, colour in named.items()}
        self._words["key"] = Style(color=named["accent"].rich_color, bold=True)
        self._words["cursor"] = Style(bgcolor=cursor.rich_color)
        self._words["selected"] = Style(bgcolor=self._background.blend(cursor, 0.45).rich_color)
        self._words["bar"] = Style(bgcolor=bar.rich_color)

    def style(self, ink: str) -> Style:
        """The style of an ink. Several words add up; the last colour wins, and `dim` fades it."""
        found = self._cache.get(ink)
        if found is None:
            found = Style()
            words = ink.split()
            for word in words:
                if word == "dim" and not self._ansi:
                    base = next((self._colours[name] for name in words if name in self._colours), None)
                    if base is not None:
                        found += Style(color=self._mixed(base, 0.45).rich_color)
                else:
                    found += self._words[word]
            self._cache[ink] = found
        return found

    def _under(self, text: Color, wanted: Color) -> Color:
        """The ground of the cursor's row: it keeps its inks, so a theme's strong colour is thinned until text shows."""
        shares = (1.0, 0.8, 0.6, 0.45, 0.35, 0.28)
        found = (self._background.blend(wanted, share) for share in shares)
        return next(
            (colour for colour in found if contrast(text, colour) >= _TEXT_CONTRAST),
            self._background.blend(wanted, 0.2),
        )

    def _mixed(self, colour: Color, share: float) -> Color:
        return self._background.blend(colour, share)


def contrast(one: Color, other: Color) -> float:
    """From 1 (none) to 21 (black on white): WCAG 2.2, contrast ratio."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Color) -> float:
    """WCAG 2.2, relative luminance of an sRGB colour."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _readable(colour: Color, grounds: Sequence[Color], pole: Color) -> Color:
    """The colour, moved towards `pole` until it stands out from each of the grounds."""
    for step in range(10):
        found = colour.blend(pole, step / 10)
        if all(contrast(found, ground) >= _LEAST_CONTRAST for ground in grounds):
            return found
    return pole


def palette_of(app: App[object]) -> Palette:
    """The palette of the app's present theme; one object as long as the theme stays."""
    theme = app.current_theme
    key = (theme.name, theme.ansi or bool(app.ansi_color))
    kept: tuple[tuple[str, bool], Palette] | None = getattr(app, "_lmplay_palette", None)
    if kept is None or kept[0] != key:
        kept = (key, Palette(app.theme_variables, dark=theme.dark, ansi=key[1]))
        app._lmplay_palette = kept  # type: ignore[attr-defined]
    return kept[1]


def series_ink(series: int, *, dim: bool = False) -> str:
    return f"s{series % NUM_SERIES} dim" if dim else f"s{series % NUM_SERIES}"
