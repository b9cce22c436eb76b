"""Every theme can be read: the inks of widgets on whatever they lie on."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from textual.color import Color

from lmplay_tui.theme import Palette, contrast
from tests.tui.support import make_app

INKS = ("muted", "accent", "primary", "second", "good", "warn", "bad", "key", *(f"s{number}" for number in range(8)))
GROUNDS = ("background", "cursor", "selected", "bar")


def test_contrast_is_that_of_wcag() -> None:
    # The pairs that its readers know: the extremes, and the lightest grey on white that passes AA.
    assert contrast(Color(0, 0, 0), Color(255, 255, 255)) == 21
    assert contrast(Color(119, 119, 119), Color(119, 119, 119)) == 1
    assert round(contrast(Color.parse("#767676"), Color(255, 255, 255)), 2) == 4.54


def test_every_ink_of_every_theme_stands_out_from_what_it_lies_on(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    with_colours = [theme for theme in app.available_themes.values() if not theme.ansi]
    assert len(with_colours) > 15
    for theme in with_colours:
        app.theme = theme.name
        variables = app.get_css_variables()
        palette = Palette(variables, dark=theme.dark, ansi=False)

        def colour(ink: str, *, under: bool = False, palette: Palette = palette) -> Color:
            style = palette.style(ink)
            found = style.bgcolor if under else style.color
            assert found is not None
            assert found.triplet is not None
            return Color(*found.triplet)

        background = Color.parse(variables["background"])
        grounds = {name: background if name == "background" else colour(name, under=True) for name in GROUNDS}
        for ink, (name, ground) in product(INKS, grounds.items()):
            assert contrast(colour(ink), ground) >= 3, f"{theme.name}: {ink} on {name}"
        # What has no ink is the theme's own text: on the cursor's row it is hardly worse to read than elsewhere.
        text = Color.parse(variables["foreground"])
        assert contrast(text, grounds["cursor"]) >= min(7, contrast(text, background) * 0.65), theme.name
