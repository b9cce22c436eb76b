"""`lmplay-tui`, also as `python -m lmplay_tui`."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from lmplay.stats.apart import begin_reading
from lmplay_tui.options import parse_options


def main() -> NoReturn:
    # What starting makes is there to stay: looking for garbage in it, again and again, takes a seventh of the time to
    # the first frame. The application begins to collect behind that.
    gc.disable()
    options = parse_options(sys.argv[1:])
    # A run of a million rows is read while the screens are imported.
    reader = begin_reading(options.root / options.open) if options.open else None
    from lmplay_tui.app import run

    sys.exit(run(options, reader))


if __name__ == "__main__":
    main()
