"""What can be said on the command line of `lmplay-tui`. Read before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

DEFAULT_FPS = 2.0
SSH_FPS = 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    runs: Path | None = None
    readonly: bool = False
    fps: float = DEFAULT_FPS
    ascii: bool = False
    mouse: bool = True
    theme: str | None = None
    reset_terminal: bool = False
    serve: bool = False
    port: int = 0
    keys: bool = False
    open: str | None = None
    """A run to show at once."""

    @property
    def root(self) -> Path:
        """As `lmplay.runs.runs_root`, which isn't imported before the first frame."""
        if self.runs is not None:
            return self.runs.expanduser().absolute()
        configured = os.environ.get("LMPLAY_RUNS")
        return (Path(configured).expanduser() if configured else Path("runs")).absolute()


def parse_options(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Exits with status 2, as argparse does, on wrong usage."""
    remote = "SSH_CONNECTION" in environment or "SSH_TTY" in environment
    usual = Options(fps=SSH_FPS if remote else DEFAULT_FPS, ascii=_shows_only_ascii(environment))
    if not arguments:
        return usual
    import argparse  # with what it brings it takes 5 ms, which nobody need wait for who says nothing

    parser = argparse.ArgumentParser(
        prog="lmplay-tui",
        description="The workbench of lmplay: experiments, runs, charts, comparisons and chat on one screen. "
        "Training goes on in processes of its own: leaving, or losing the terminal, never harms it.",
    )
    parser.add_argument("run", nargs="?", help="a run to show at once")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="folder of the runs (default: $LMPLAY_RUNS or ./runs)")
    parser.add_argument("--readonly", action="store_true", help="only look: nothing can be started, steered or deleted")
    parser.add_argument(
        "--fps",
        type=float,
        default=usual.fps,
        metavar="N",
        help=f"looks at the runs a second, up to 10 (default: {DEFAULT_FPS:g}, over SSH {SSH_FPS:g})",
    )
    parser.add_argument(
        "--ascii", action="store_true", help="only ASCII characters, for fonts without braille and boxes"
    )
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument("--theme", help="lmplay-dark, lmplay-light, ansi-dark, ansi-light, or any theme of Textual")
    parser.add_argument(
        "--keys", action="store_true", help="print every action with its keys, as a keymap file, and exit"
    )
    parser.add_argument(
        "--reset-terminal", action="store_true", help="mend a terminal after a bad disconnect, and exit"
    )
    parser.add_argument("--serve", action="store_true", help="offer the workbench to a browser on this machine")
    parser.add_argument("--port", type=int, default=0, help="port of --serve (default: any that is free)")
    found = parser.parse_args(arguments)
    if not 0 < found.fps <= 10:
        parser.error("--fps takes a number above 0, up to 10")
    return replace(
        usual,
        runs=found.runs,
        readonly=found.readonly,
        fps=found.fps,
        ascii=found.ascii or usual.ascii,
        mouse=not found.no_mouse,
        theme=found.theme,
        reset_terminal=found.reset_terminal,
        serve=found.serve,
        port=found.port,
        keys=found.keys,
        open=found.run,
    )


def _shows_only_ascii(environment: Mapping[str, str]) -> bool:
    """The console of Linux has a font of 256 characters; a locale that names another encoding than UTF-8 means it."""
    locale = next(filter(None, (environment.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))), "")
    encoding = locale.partition(".")[2].partition("@")[0].casefold().replace("-", "")
    return environment.get("TERM") == "linux" or encoding not in ("", "utf8")
