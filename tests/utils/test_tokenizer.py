"""The vocabulary is placed where tiktoken looks, with the sums that tiktoken itself expects."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiktoken_ext.openai_public

from lmplay.utils.errors import LMPlayError
from lmplay.utils.tokenizer import GPT2_FILES, get_tokenizer


def test_addresses_and_sums_are_those_of_the_installed_tiktoken() -> None:
    source = inspect.getsource(tiktoken_ext.openai_public.gpt2)
    for _, address, expected in GPT2_FILES:
        assert address in source
        assert expected in source


def test_a_damaged_cache_is_mended_and_a_set_cache_directory_is_respected(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TIKTOKEN_CACHE_DIR"}
    environment["LMPLAY_CACHE"] = str(tmp_path)
    load = "import lmplay, os, tiktoken; tiktoken.get_encoding('gpt2'); print(os.environ['TIKTOKEN_CACHE_DIR'])"
    first = subprocess.run([sys.executable, "-c", load], env=environment, capture_output=True, text=True, check=True)
    folder = Path(first.stdout.strip())
    assert folder == tmp_path / "tiktoken"
    for file in folder.iterdir():
        file.write_bytes(b"damaged")
    subprocess.run([sys.executable, "-c", load], env=environment, check=True, capture_output=True)

    environment["TIKTOKEN_CACHE_DIR"] = str(tmp_path / "own")
    ours = "import lmplay, os; print(os.environ['TIKTOKEN_CACHE_DIR'])"
    kept = subprocess.run([sys.executable, "-c", ours], env=environment, capture_output=True, text=True, check=True)
    assert kept.stdout.strip() == str(tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_the_end_marker_in_a_text_is_text() -> None:
    tokenizer = get_tokenizer()
    assert tokenizer.eot_token not in tokenizer.encode_ordinary("a <|endoftext|> b")


def test_an_unknown_tokenizer_names_the_known_ones() -> None:
    with pytest.raises(LMPlayError, match=r"'word2vec' is not known; known are .*gpt2"):
        get_tokenizer("word2vec")
