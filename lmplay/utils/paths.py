"""Where lmplay keeps what it can make again: token shards, the tokenizer's files, indexes."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """`$LMPLAY_CACHE`, or the platform's cache folder of the user. Not created here."""
    configured = os.environ.get("LMPLAY_CACHE")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_cache_dir("lmplay"))
