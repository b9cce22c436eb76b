"""A full, read-only or forbidden disk under the token cache, said in one line. Used wherever the cache is written."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from lmplay.utils.errors import LMPlayError
from lmplay.utils.paths import cache_root


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turns the system's errors inside the block into `LMPlayError`s that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise LMPlayError(
                f"no room for tokens in {cache_root()}: {error.strerror}; free some (lmplay data prune) or set "
                "LMPLAY_CACHE to another disk, then start again: it goes on where it stopped"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise LMPlayError(
                f"the token cache {cache_root()} can't be written: {error.strerror}; set LMPLAY_CACHE to another folder"
            ) from error
        raise
