"""How the next answer is sampled: a slider for each setting."""

from __future__ import annotations

from collections.abc import Mapping

from textual.app import ComposeResult
from textual.containers import Container

from lmplay_tui.widgets.slider import Slider

SLIDERS: tuple[tuple[str, str, tuple[float, ...], float, str], ...] = (
    # name of the setting, label, stops, default, what is said of it
    ("temperature", "temperature", tuple(round(0.05 * n, 2) for n in range(41)), 0.8, "Lower is safer; 0: the best."),
    ("top_k", "top-k", (0, 1, 2, 5, 10, 20, 40, 50, 100, 200, 500), 50, "Only the k most likely tokens; 0: all."),
    ("top_p", "top-p", tuple(round(0.05 * n, 2) for n in range(1, 21)), 1.0, "Only the likeliest that sum to p."),
    ("repetition_penalty", "penalty", tuple(round(1 + 0.05 * n, 2) for n in range(21)), 1.0, "Against repetition."),
    ("max_tokens", "tokens", (16, 32, 64, 128, 256, 512, 1024), 128, "The longest answer."),
    ("seed", "seed", tuple(range(100)), 0, "Of the draws; the same seed gives the same answer."),
)
_WHOLE = frozenset({"top_k", "max_tokens", "seed"})


class Sampling(Container):
    """`settings` are those that the engine takes; a change is told by the slider's own message."""

    DEFAULT_CSS = """
    Sampling { height: auto; width: 1fr; }
    """

    def __init__(self, settings: Mapping[str, object], *, id: str | None = None) -> None:
        super().__init__(id=id)
        kept = {name: value for name, value in settings.items() if isinstance(value, int | float)}
        self._sliders = {
            name: Slider(label, stops, value=float(kept.get(name, default)), told=told, id=name)
            for name, label, stops, default, told in SLIDERS
        }

    def compose(self) -> ComposeResult:
        yield from self._sliders.values()

    @property
    def settings(self) -> dict[str, float | int]:
        return {name: int(one.value) if name in _WHOLE else one.value for name, one in self._sliders.items()}
