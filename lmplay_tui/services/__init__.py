"""What the screens ask: runs on disk, subprocesses, the index of experiments, conversations. No Textual here."""
