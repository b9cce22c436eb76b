"""`python -m lmplay.train RUN_DIRECTORY`: the worker."""

import sys

from lmplay.train.worker import main

sys.exit(main(sys.argv[1:]))
