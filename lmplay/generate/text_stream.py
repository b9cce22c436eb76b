"""Token ids in, text out, as early as it is certain: never half a character, never the start of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """What generation asks of a tokenizer; `tiktoken.Encoding` has it."""

    @property
    def n_vocab(self) -> int: ...
    @property
    def eot_token(self) -> int: ...
    def encode_ordinary(self, text: str) -> list[int]: ...
    def decode_single_token_bytes(self, token: int) -> bytes: ...


class TextStream:
    """The text of one row: what `push` and `finish` return adds up to it. A character of several tokens comes whole.

    Bytes that are no UTF-8 become U+FFFD, as `bytes.decode("utf-8", errors="replace")` has it for the whole.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.text = ""
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._held = ""  # may be the start of a stop string
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that became certain with `token`. Sets `stopped` when a stop string is complete."""
        return self._release(self._utf8.decode(self._tokenizer.decode_single_token_bytes(token)), final=False)

    def finish(self) -> str:
        """The text still held back: no more tokens will come. After a stop string there is none."""
        return self._release(self._utf8.decode(b"", final=True), final=True)

    def _release(self, new: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        held = self._held + new
        found = [position for position in map(held.find, self._stop) if position >= 0]
        if found:
            self.stopped = True
            certain, self._held = held[: min(found)], ""
        else:
            kept = 0 if final else self._possible_start(held)
            certain, self._held = held[: len(held) - kept], held[len(held) - kept :]
        self.text += certain
        return certain

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string begins with."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest


def decode(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of `tokens` at once, with U+FFFD for bytes that are no UTF-8."""
    return b"".join(map(tokenizer.decode_single_token_bytes, tokens)).decode("utf-8", errors="replace")
