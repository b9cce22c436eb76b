"""`lmplay-tui`, also as `python -m lmplay_tui`."""

from __future__ import annotations

import gc
from typing import NoReturn


def main() -> NoReturn:
    # What starting makes is there to stay: looking for garbage in it, again and again, takes a seventh of the time to
    # the first frame. The application begins to collect behind that.
    gc.disable()
    from lmplay_tui.app import main as start

    start()


if __name__ == "__main__":
    main()
