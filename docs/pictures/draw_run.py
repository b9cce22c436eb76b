"""Draws `run.svg`: the panel that `lmplay run` shows, for a run that exists. `python docs/pictures/draw_run.py RUN`."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from lmplay.cli.viewer_panel import RunView, render
from lmplay.runs import RunFollower, resolve_run


def main(run: str) -> None:
    path = resolve_run(run)
    view = RunView(path, RunFollower(path))
    view.poll()
    console = Console(record=True, width=100, force_terminal=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(render(view))
    Path(__file__).with_name("run.svg").write_text(console.export_svg(title=f"lmplay run {view.experiment}"))


if __name__ == "__main__":
    main(sys.argv[1])
