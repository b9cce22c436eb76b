"""`python -m lmplay` is `lmplay`."""

from lmplay.cli.main import main

main()
