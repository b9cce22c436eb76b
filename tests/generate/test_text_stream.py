"""Streaming never shows half a character nor any part of a stop string, and adds up to the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmplay.generate.text_stream import TextStream, decode
from lmplay.utils import get_tokenizer


def stream(tokens: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    text_stream = TextStream(get_tokenizer(), stop)
    parts = [text_stream.push(token) for token in tokens]
    return [*parts, text_stream.finish()], text_stream


def test_a_character_of_several_tokens_comes_whole() -> None:
    tokens = get_tokenizer().encode_ordinary("a 🦙 日本語")
    assert len(tokens) > 8  # more tokens than characters
    parts, _ = stream(tokens)
    assert "".join(parts) == "a 🦙 日本語"
    assert not any("\ufffd" in part for part in parts)


@given(tokens=st.lists(st.integers(0, 50256), max_size=30))
def test_the_parts_add_up_to_the_text_of_all_tokens(tokens: list[int]) -> None:
    parts, text_stream = stream(tokens)
    assert "".join(parts) == text_stream.text == decode(get_tokenizer(), tokens)


@given(
    text=st.text(alphabet="ab🦙\n", max_size=30),
    stop=st.lists(st.text(alphabet="ab🦙\n", min_size=1, max_size=4), max_size=3),
)
def test_text_ends_before_the_first_stop_string_and_never_shows_a_part_of_it(text: str, stop: list[str]) -> None:
    encoding = get_tokenizer()
    text_stream = TextStream(encoding, stop)
    shown = pushed = ""
    for token in [encoding.encode_single_token(bytes([byte])) for byte in text.encode()]:
        shown += text_stream.push(token)
        pushed = text_stream.text
        assert shown == pushed
        assert not any(item in shown for item in stop)
        if text_stream.stopped:
            break
    shown += text_stream.finish()
    places = [text.find(item) for item in stop if item in text]
    if places:
        # Of two stop strings the one that is complete first ends the text.
        first_complete = min(text.find(item) + len(item) for item in stop if item in text)
        ends = [text.find(item) for item in stop if item in text and text.find(item) + len(item) == first_complete]
        assert text_stream.stopped
        assert shown == text[: min(ends)]
    else:
        assert shown == text


@pytest.mark.parametrize(("text", "held"), [("one STO", "STO"), ("one STOR", ""), ("one S", "S")])
def test_only_what_may_become_a_stop_string_is_held_back(text: str, held: str) -> None:
    encoding = get_tokenizer()
    text_stream = TextStream(encoding, ("STOP",))
    shown = "".join(text_stream.push(encoding.encode_single_token(bytes([byte]))) for byte in text.encode())
    assert shown == text.removesuffix(held)
    assert text_stream.finish() == held
