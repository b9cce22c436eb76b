"""`python -m lmplay.generate ...` is `lmplay generate ...`."""

import runpy
import sys

sys.argv.insert(1, "generate")
runpy.run_module("lmplay", run_name="__main__", alter_sys=True)
