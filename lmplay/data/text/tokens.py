"""Documents become token ids, on all cores. Called by `lmplay.data.shards.prepare`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import tiktoken

from lmplay.data.text.documents import Document
from lmplay.utils.tokenizer import get_tokenizer

_TASK_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class EncodedDocuments:
    """Token ids of some documents back to back; `mask` is 1 where a token is learned, `None` where all are."""

    tokens: npt.NDArray[np.unsignedinteger]
    lengths: list[int]
    hashes: list[int]
    mask: npt.NDArray[np.uint8] | None


class Encoder:
    """Encodes documents in the order they come. tiktoken works outside the interpreter lock, so threads do."""

    def __init__(self, tokenizer: tiktoken.Encoding, *, masked: bool, workers: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._masked = masked
        self._type = token_type(tokenizer)
        self._pool = ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="tokens")

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, documents: Sequence[Document]) -> list[Future[EncodedDocuments]]:
        """Starts encoding; the futures hold the documents in order."""
        return [self._pool.submit(self._encode, task) for task in _tasks(documents)]

    def _encode(self, documents: Sequence[Document]) -> EncodedDocuments:
        end = np.array([self._tokenizer.eot_token], dtype=np.uint32)
        pieces, lengths, learned, sizes = [], [], [], []
        for document in documents:
            length = 0
            for part in document.parts:
                piece = encode_text(self._tokenizer, part.text)
                pieces.append(piece)
                if part.ended:
                    pieces.append(end)
                sizes.append(piece.size + part.ended)
                learned.append(part.learned)
                length += sizes[-1]
            lengths.append(length)
        return EncodedDocuments(
            tokens=np.concatenate(pieces).astype(self._type),
            lengths=lengths,
            hashes=[document.hash for document in documents],
            mask=np.repeat(np.array(learned, dtype=np.uint8), sizes) if self._masked else None,
        )


def encode_text(tokenizer: tiktoken.Encoding, text: str) -> npt.NDArray[np.uint32]:
    """`encode_ordinary` without the detour through a Python list: no special tokens, whatever the text holds."""
    try:
        return tokenizer.encode_to_numpy(text, disallowed_special=())
    except UnicodeEncodeError:  # half of a surrogate pair, as a broken JSON escape leaves it
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return tokenizer.encode_to_numpy(whole, disallowed_special=())


def token_type(tokenizer: tiktoken.Encoding) -> np.dtype[np.unsignedinteger]:
    """The smallest type that holds every token of a vocabulary."""
    return np.dtype("<u2" if tokenizer.n_vocab <= 1 << 16 else "<u4")


@cache
def token_sizes(name: str) -> npt.NDArray[np.int64]:
    """(vocabulary,) UTF-8 bytes that each token stands for; 0 for control tokens and numbers that are not used."""
    tokenizer = get_tokenizer(name)
    sizes = np.zeros(tokenizer.n_vocab, dtype=np.int64)
    for token in range(tokenizer.n_vocab):
        with contextlib.suppress(KeyError):
            sizes[token] = len(tokenizer.decode_single_token_bytes(token))
    sizes[[tokenizer.encode_single_token(special) for special in tokenizer.special_tokens_set]] = 0
    return sizes


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tasks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Runs of documents large enough that handing them to a thread costs nothing beside encoding them."""
    task: list[Document] = []
    size = 0
    for document in documents:
        task.append(document)
        size += document.size
        if size >= _TASK_CHARACTERS:
            yield task
            task, size = [], 0
    if task:
        yield task
