"""Hours of use: what is kept goes with what a run has logged, not with how often it was looked at or drawn."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from rich.color import ColorSystem
from rich.style import Style
from textual.strip import Strip

from lmplay_tui.lines import line, to_strip
from lmplay_tui.services.memory import tidy
from lmplay_tui.services.run_feed import RunFeed
from lmplay_tui.theme import Palette
from lmplay_tui.views.run_charts import charts_of
from lmplay_tui.views.run_log import RunLog
from tests.tui.support import plant_run


def test_styles_of_lines_that_were_drawn_are_not_kept() -> None:
    palette = Palette({}, dark=True, ansi=True)

    def draw(first: int) -> None:
        for place in range(first, first + 400):
            strip = to_strip(line((f"step {place}", "muted"), ("loss 3.1", "s0")), palette, 40).apply_offsets(0, place)
            for text, style, _ in strip:
                Strip.render_style(style or Style(), text, ColorSystem.TRUECOLOR)

    kept = []
    for first in range(0, 2000, 400):
        draw(first)
        tidy()
        gc.collect()
        kept.append(sum(type(one) is Style for one in gc.get_objects()))
    assert kept[-1] - kept[0] < 50


def test_a_run_that_is_followed_keeps_its_newest_picture_only(tmp_path: Path) -> None:
    path = plant_run(tmp_path, "first", steps=1200)
    metrics = (path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (path / "metrics.jsonl").write_bytes(b"".join(metrics[:400]))
    feed, log = RunFeed(path), RunLog()

    def blocks_after(first: int, last: int) -> int:
        for place in range(first, last, 4):
            with (path / "metrics.jsonl").open("ab") as file:
                file.write(b"".join(metrics[place : place + 4]))
            picture = feed.look()
            charts_of(picture, ("loss", "lr", "grad_norm", "tokens_per_second"))
            log.take(picture)
        gc.collect()
        return sys.getallocatedblocks()

    # 64 looks each: as many as are joined into one piece, so that the same number of small ones stands at either end.
    before, after = blocks_after(400, 656), blocks_after(656, 912)
    # Figures are in arrays: a row is no object of its own, while a picture that was kept would be a hundred.
    assert after - before < 256
