"""What `lmplay-tui` does without a screen: print the keys, mend a terminal, serve a browser, say what goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lmplay.utils.errors import LMPlayError
from lmplay_tui.keymap import key_list
from lmplay_tui.options import Options

if TYPE_CHECKING:
    from lmplay_tui.services.preparation import Preparation
    from lmplay_tui.services.run_store import Snapshot

# In this order: leave synchronised output, the alternate screen and bracketed paste; mouse, focus reports and the
# extended keyboard off; cursor and colours as they were; scrolling over the whole screen; the usual character set.
_RESET = (
    "\x1b[?2026l\x1b[?1049l\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?1004l"
    "\x1b[<u\x1b[?25h\x1b[0m\x1b[r\x1b(B\x1b[?7h"
)


def print_keys(keymap: Mapping[str, str]) -> None:
    """Every action with its keys, as a keymap file."""
    for text in key_list(keymap):
        print(text)  # noqa: T201


def say_what_goes_on(snapshot: Snapshot, preparations: Sequence[Preparation]) -> None:
    """On leaving: which runs and preparations go on without the screen."""
    live = [run.name for run in snapshot.runs if run.status.active]
    if live:
        some = ", ".join(live[:5]) + (", ..." if len(live) > 5 else "")
        goes = "1 run goes on" if len(live) == 1 else f"{len(live)} runs go on"
        print(f"{goes}: {some}. lmplay-tui shows {'it' if len(live) == 1 else 'them'} again.")  # noqa: T201
    for one in preparations:
        if one.state == "running":
            print(f"The text of {one.name} is prepared further; lmplay-tui shows how far it is.")  # noqa: T201


def reset_terminal() -> None:
    """Bring a terminal back whose program vanished without saying good-bye."""
    sys.stdout.write(_RESET)
    sys.stdout.flush()
    if sys.stdin.isatty():
        subprocess.run(["stty", "sane"], check=False)


def serve(options: Options) -> None:
    """Offer the workbench to a browser on this machine."""
    try:
        from lmplay_tui.serve import serve_workbench
    except ImportError as error:
        raise LMPlayError(
            f"--serve needs a package that is not installed ({error.name}): pip install 'lmplay[serve]'"
        ) from error
    serve_workbench(options)
