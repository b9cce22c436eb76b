"""The errors that are meant for people: each message says what is wrong and what to do.

The command line prints such a message in one line and exits with `exit_status`; the traceback goes to the log.
"""

from __future__ import annotations


class LMPlayError(Exception):
    """Something failed that the person can mend: a missing checkpoint, an unreadable plan, a full disk."""

    exit_status = 1


class WrongUsageError(LMPlayError, ValueError):
    """What was asked for cannot be meant: an unknown experiment, option or key, a value out of range."""

    exit_status = 2
