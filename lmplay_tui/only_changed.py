"""Of each row that changes, the stretch that changes goes to the terminal, and nothing to the left of it.

Textual cuts what it sends at the right end of a stretch only: a curve that grows at its right end would have all of its
rows sent from the axis on, twice a second, which is a quarter of what a live run costs a slow line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.control import Control
from textual._compositor import ChopsUpdate
from textual.app import App

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from textual.screen import Screen


class ExactUpdate(ChopsUpdate):
    """Writes each stretch (row, first column, the one behind its last) and no cell beside it."""

    def render_segments(self, console: Console) -> str:
        sequences = []
        for row, first, end in self.spans:
            for chop_end, (start, strip) in zip(self.chop_ends[row], self.chops[row].items(), strict=False):
                if strip is None or start >= end or chop_end <= first:
                    continue
                left = max(start, first)
                sequences.append(Control.move_to(left, row).segment.text)
                sequences.append(strip.crop(left - start, min(chop_end, end) - start).render(console))
        return "".join(sequences)


class SendsOnlyChanged(App[None]):
    """An application that sends what changed, exactly."""

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        if type(renderable) is ChopsUpdate:
            renderable = ExactUpdate(renderable.chops, renderable.spans, renderable.chop_ends)
        super()._display(screen, renderable)
