"""Copying that works through SSH and tmux: OSC 52 for the terminal, tmux's own buffer, and a file in any case."""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE

from lmplay.utils.files import write_atomically
from lmplay_tui.state import state_folder

FILE = "clipboard.txt"


async def hand_over(text: str) -> list[str]:
    """Tell tmux, where this runs in it, and write the file; returns in words where the text is now.

    The terminal itself is told by Textual (`App.copy_to_clipboard`), which owns its output.
    """
    places = []
    if os.environ.get("TMUX") and shutil.which("tmux"):
        # -w lets tmux pass it on to the terminal around it.
        tmux = await asyncio.create_subprocess_exec(
            "tmux", "load-buffer", "-w", "-", stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL
        )
        await tmux.communicate(text.encode())
        places += ["tmux's buffer"] if tmux.returncode == 0 else []
    file = state_folder() / FILE
    try:
        await asyncio.to_thread(write_atomically, file, text, durable=False)
    except OSError:
        return places
    return [*places, str(file)]
