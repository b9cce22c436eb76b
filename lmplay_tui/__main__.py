"""`python -m lmplay_tui` is `lmplay-tui`."""

from lmplay_tui.app import main

if __name__ == "__main__":
    main()
