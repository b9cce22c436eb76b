"""`python -m lmplay.train RUN_DIRECTORY`: the worker."""

import contextlib
import os
import sys

from lmplay.train.early_signals import remember

remember()

from lmplay.train.worker import main  # noqa: E402 - takes seconds

status = main(sys.argv[1:])
with contextlib.suppress(OSError):  # a full disk changes nothing about how it ended
    sys.stdout.flush()
    sys.stderr.flush()
# At once: threads that wait for a disk or prepare a batch must not hold back a process that has said its last word.
os._exit(status)
