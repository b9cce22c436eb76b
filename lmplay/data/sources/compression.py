"""Opening files as plain bytes, whatever they are compressed with, and refusing archives that blow up."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from lmplay.utils.errors import LMPlayError

# Text shrinks three- to tenfold, logs perhaps a hundredfold; an archive beyond both limits is a bomb.
MAX_RATIO = 250
TYPICAL_RATIO = 4
_HARMLESS_BYTES = 64 << 20

_Opener = Callable[[IO[bytes]], IO[bytes]]


def _arrow(codec: str) -> _Opener:
    def opener(raw: IO[bytes]) -> IO[bytes]:
        import pyarrow

        return io.BufferedReader(_ArrowRaw(pyarrow.CompressedInputStream(raw, codec)))

    return opener


COMPRESSIONS: dict[str, _Opener] = {
    ".gz": lambda raw: io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb")),
    ".bz2": lambda raw: io.BufferedReader(bz2.BZ2File(raw, "rb")),
    ".xz": lambda raw: io.BufferedReader(lzma.LZMAFile(raw, "rb")),  # noqa: SIM115 - closed by Opened
    ".zst": _arrow("zstd"),
    ".lz4": _arrow("lz4"),
}

BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""What the decompressors raise for damaged files, beside OSError."""


def packed(path: Path) -> bool:
    """Whether a file is smaller than its text: compressed, or Parquet, which compresses inside."""
    return path.suffix.lower() in COMPRESSIONS or path.suffix.lower() == ".parquet"


def plain_suffix(path: Path) -> str:
    """The ending that tells the format: `.jsonl` of `a.jsonl.gz`."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSIONS else path.suffix.lower()


class Opened(io.RawIOBase):
    """A file's plain bytes from the start. A context manager; errors name the file in one line."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        try:
            self._raw = path.open("rb")
            self.size = path.stat().st_size
        except OSError as error:
            raise LMPlayError(f"{path} can't be read: {error.strerror or error}") from error
        opener = COMPRESSIONS.get(path.suffix.lower())
        self.compressed = opener is not None
        self._plain: IO[bytes] = opener(self._raw) if opener is not None else self._raw
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._plain.read(len(buffer))
        except BROKEN as error:
            raise LMPlayError(f"{self._path} is damaged: it can't be decompressed ({error})") from error
        except OSError as error:
            raise LMPlayError(f"{self._path} can't be read: {error.strerror or error}") from error
        buffer[: len(chunk)] = chunk
        self._given += len(chunk)
        if self.compressed and self._given > max(_HARMLESS_BYTES, MAX_RATIO * self.size):
            raise LMPlayError(
                f"{self._path} grows to more than {MAX_RATIO} times its size: it looks like a decompression bomb; "
                "if it is none, decompress it first"
            )
        return len(chunk)

    def seek_plain(self, offset: int) -> None:
        """Go to a byte; only for files that are not compressed."""
        assert not self.compressed
        self._raw.seek(offset)

    @property
    def position(self) -> int:
        """Bytes of the file on disk that have been read."""
        return self._raw.tell()

    def close(self) -> None:
        if not self.closed:
            self._plain.close()
            self._raw.close()
        super().close()


class _ArrowRaw(io.RawIOBase):
    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)
