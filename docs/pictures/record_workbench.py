"""Records the workbench in a real tmux session, as pictures (`workbench_*.svg`) and as text (`workbench.txt`).

`python docs/pictures/record_workbench.py RUN MARKED...` in a folder whose `runs` hold RUN (shown on screen 4, best
while it trains) and the MARKED ones (compared on screen 5, the first being the baseline); `--only data` makes one
picture anew and leaves the others. Needs tmux, and prepares the plan quickstart.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE = Path(__file__).parent
WIDTH, HEIGHT = 110, 34
# Where tmux keeps no colour the picture shows that of the theme.
COLOURS = TerminalTheme((15, 18, 24), (216, 220, 230), [(0, 0, 0)] * 8)
SESSION = (
    # (picture, keys as tmux names them, what stands on the screen then)
    ("experiments", ("1",), "activations"),
    ("launch", ("2",), "of memory"),
    ("runs", ("Escape", "3"), "now"),
    ("run", ("4",), "tokens/s"),
    ("compare", ("5",), "difference"),
    ("chat", ("6",), "temperature"),
    ("data", ("Escape", "7", "v"), "median"),
)


def main(shown: str, marked: list[str], only: str | None) -> None:
    subprocess.run([sys.executable, "-m", "lmplay", "data", "prepare", "quickstart"], check=True)
    server = f"lmplay-pictures-{os.getpid()}"
    tmux = ["tmux", "-L", server, "-f", os.devnull]
    runs = Path.cwd() / "runs"
    with tempfile.TemporaryDirectory() as state:
        kept = {
            f"{runs}:shown": shown,
            f"{runs}:marked": marked,
            f"{runs}:baseline": marked[0],
            f"{runs}:cursor": shown,
        }
        kept |= {"experiments.cursor": "test_runner", "launch": {"experiment": "test_runner", "plan": "quickstart"}}
        (Path(state) / "workbench.json").write_text(json.dumps(kept))
        command = f"env COLORTERM=truecolor LMPLAY_STATE={state} {sys.executable} -m lmplay_tui --runs {runs}"
        subprocess.run([*tmux, "new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), command], check=True)
        subprocess.run([*tmux, "set", "-g", "status", "off"], check=True)
        subprocess.run([*tmux, "set", "-g", "escape-time", "0"], check=True)
        try:
            while "test_runner" not in captured(tmux):  # keys typed before its first frame are lost
                time.sleep(0.2)
            texts = {name: picture(tmux, name, *step) for name, *step in SESSION if only in (None, name)}
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)
    file = HERE / "workbench.txt"
    parts = re.split(r"^==== (\w+)\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = {**dict(zip(parts[1::2], parts[2::2], strict=True)), **texts}
    text = "\n".join(f"==== {name}\n{texts[name].rstrip()}\n" for name, *_ in SESSION)
    file.write_text(text, encoding="utf-8")


def picture(tmux: list[str], name: str, keys: tuple[str, ...], expected: str) -> str:
    """Press the keys, wait until the screen is complete and still, and keep it; returns its text."""
    for key in keys:
        subprocess.run([*tmux, "send-keys", key], check=True)
        time.sleep(0.5)
    before, end = "", time.monotonic() + 120
    while True:
        time.sleep(2.0)
        now = captured(tmux)
        if expected in now and (now == before or time.monotonic() > end):
            break
        if time.monotonic() > end:
            raise SystemExit(f"{expected!r} never came:\n{now}")
        before = now
    console = Console(record=True, width=WIDTH, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(Text.from_ansi(captured(tmux, "-e")), soft_wrap=True)
    svg = console.export_svg(title=f"lmplay-tui: {name}", theme=COLOURS)
    (HERE / f"workbench_{name}.svg").write_text(svg, encoding="utf-8")
    return now


def captured(tmux: list[str], *options: str) -> str:
    found = subprocess.run([*tmux, "capture-pane", "-p", *options], capture_output=True, text=True, check=True)
    return found.stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shown", metavar="RUN")
    parser.add_argument("marked", metavar="MARKED", nargs="+")
    parser.add_argument("--only", choices=[name for name, *_ in SESSION])
    main(**vars(parser.parse_args()))
