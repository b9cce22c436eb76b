"""Notices that the terminal is gone where nobody says so."""

from __future__ import annotations

import os
import select
import signal
import sys


def go_with_terminal() -> None:
    """End as by a hang-up when the terminal was closed and its signal was ignored, as below `nohup` it is.

    Without an end, reading from what is closed returns at once, for ever: a whole core, taken from the runs.
    """
    if sys.__stdin__ is None or not hasattr(select, "poll"):
        return
    watched = select.poll()
    watched.register(sys.__stdin__.fileno(), 0)
    if watched.poll(0):  # hang-ups and errors are told unasked
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGHUP)
