"""Packings: every token of every document where the rules say, in every mode, whatever the documents."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmplay.data import IGNORED
from lmplay.data.batch import Batch
from lmplay.data.rows import rowplan
from lmplay.data.rows.diet import empty_batch
from lmplay.data.rows.first_fit import first_fit_decreasing
from lmplay.data.rows.packing import pack
from lmplay.data.rows.part import Part, split, whole
from lmplay.data.shards.build import _Shard, _with_shard, _write
from lmplay.data.shards.store import Manifest, TokenStore
from lmplay.data.text.tokens import EncodedDocuments
from lmplay.plans import PackingMode, Validation

END = 3_000_000


def store_of(folder: Path, lengths: list[int], learned: list[float] | None, per_shard: int) -> TokenStore:
    """A store whose every token is its own position, so that each can be told from all others."""
    tokens = np.arange(sum(lengths), dtype=np.uint32)
    borders = np.cumsum([0, *lengths]).tolist()
    content = f"{lengths} {learned} {per_shard}".encode()
    manifest = Manifest(
        key=hashlib.sha256(content).hexdigest(), identity={}, tokenizer="gpt2", end_of_text=END, token_bytes=4
    )
    for first in range(0, len(lengths), per_shard):
        last = min(first + per_shard, len(lengths))
        mask = None
        if learned is not None:
            parts = [
                np.arange(n) >= n - max(1, round(n * s))
                for n, s in zip(lengths[first:last], learned[first:last], strict=True)
            ]
            mask = np.concatenate(parts).astype(np.uint8)
        hashes = [
            int.from_bytes(hashlib.blake2b(bytes([n % 256, n // 256]), digest_size=8).digest(), "little")
            for n in range(first, last)
        ]
        shard = _Shard(None, documents=last - first, tokens=borders[last] - borders[first])
        shard.encoded = [EncodedDocuments(tokens[borders[first] : borders[last]], lengths[first:last], hashes, mask)]
        manifest = _with_shard(manifest, _write(shard, folder, len(manifest.shards)), shard)
    return TokenStore(folder, manifest)


def all_rows(part: Part, mode: PackingMode, length: int, *, ring: bool = True, phase: int = 0) -> Batch:
    packing = pack(part, mode, length, ring=ring)
    batch = empty_batch(packing.num_rows, length, documents=mode == "document")
    for number in range(packing.num_rows):
        packing.fill(number, phase, batch, number)
    return batch


documents = st.lists(st.integers(2, 40), min_size=1, max_size=30)
shares = st.lists(st.floats(0, 1), min_size=30, max_size=30)
quick = settings(max_examples=40, deadline=None)


@quick
@given(lengths=documents, length=st.integers(1, 25), per_shard=st.integers(1, 9), phase=st.integers(0, 10**6))
def test_a_stream_holds_each_token_once_as_input_and_as_target(
    lengths: list[int], length: int, per_shard: int, phase: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        part = whole(store_of(Path(folder), lengths, None, per_shard))
        batch = all_rows(part, "stream", length, phase=phase)
        real = batch.targets != IGNORED
        assert sorted(batch.tokens[real].tolist()) == list(range(sum(lengths)))
        assert batch.targets[real].tolist() == [(token + 1) % sum(lengths) for token in batch.tokens[real].tolist()]
        assert np.count_nonzero(~real) < length  # padding: less than one row
        assert pack(part, "stream", length, ring=True).counts.targets == sum(lengths)


@quick
@given(
    lengths=documents, length=st.integers(1, 25), per_shard=st.integers(1, 9), mode=st.sampled_from(["document", "pad"])
)
def test_documents_apart_hold_each_token_once_and_nothing_crosses_a_border(
    lengths: list[int], length: int, per_shard: int, mode: PackingMode
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        part = whole(store_of(Path(folder), lengths, None, per_shard))
        batch = all_rows(part, mode, length)
        ends = np.cumsum(lengths)
        real = batch.targets != IGNORED
        # All but each document's last token are inputs, all but the first are targets: the last is the end of text.
        assert sorted(batch.tokens[real].tolist()) == sorted(set(range(sum(lengths))) - set((ends - 1).tolist()))
        assert (batch.targets[real] == batch.tokens[real] + 1).all()
        document = np.searchsorted(ends, batch.tokens[real], side="right")
        if mode == "pad":
            assert (real[:, :-1] >= real[:, 1:]).all()
            assert all(
                len(set(np.searchsorted(ends, row[mask], side="right").tolist())) == 1
                for row, mask in zip(batch.tokens, real, strict=True)
            )
        else:
            assert batch.documents is not None
            rows = np.nonzero(real)[0]
            inside = Counter(zip(rows.tolist(), batch.documents[real].tolist(), document.tolist(), strict=True))
            pieces = Counter((row, index) for row, index, _ in inside)
            assert max(pieces.values()) == 1  # one document a number
            assert (np.diff(batch.documents, axis=1) >= 0).all()
        counts = pack(part, mode, length, ring=True).counts
        assert counts.tokens == counts.targets == real.sum()
        assert counts.cut_documents == counts.dropped_documents == 0


@quick
@given(lengths=documents, learned=shares, length=st.integers(1, 25), mode=st.sampled_from(["document", "pad"]))
def test_pairs_are_cut_at_the_end_of_their_row_and_counted(
    lengths: list[int], learned: list[float], length: int, mode: PackingMode
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(Path(folder), lengths, learned[: len(lengths)], 7)
        part = whole(store)
        batch = all_rows(part, mode, length)
        expected, cut, cut_targets, dropped = [], 0, 0, 0
        start = 0
        for size in lengths:
            mask = store.mask(start, start + size)
            targets = [n for n in range(start + 1, start + size) if mask[n - start]]
            kept = [n for n in targets if n - start <= length]
            expected += kept
            dropped += not kept
            cut += bool(kept) and len(kept) < len(targets)
            cut_targets += len(targets) - len(kept) if kept else 0
            start += size
        assert sorted(batch.targets[batch.targets != IGNORED].tolist()) == expected
        counts = pack(part, mode, length, ring=True).counts
        assert (counts.cut_documents, counts.cut_targets, counts.dropped_documents) == (cut, cut_targets, dropped)
        assert counts.targets == len(expected)


@quick
@given(
    lengths=st.lists(st.integers(2, 40), min_size=2, max_size=60), share=st.floats(0.01, 0.9), most=st.integers(1, 500)
)
def test_training_and_held_out_documents_make_up_the_store(lengths: list[int], share: float, most: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(Path(folder), lengths, None, 7)
        training, held = split(store, Validation(share=share, max_tokens=most))
        assert held.num_documents >= 1
        assert sorted([*training.documents().tolist(), *held.documents().tolist()]) == list(range(len(lengths)))
        assert held.num_tokens <= most or held.num_documents == 1
        for part in (training, held):
            starts = np.cumsum([0, *lengths])
            expected = [token for n in part.documents().tolist() for token in range(starts[n], starts[n + 1])]
            assert part.tokens(0, part.num_tokens).tolist() == expected
            borders = [border for block in part.document_borders(5) for border in block.tolist()]
            assert set(borders) == set(np.cumsum([0, *(lengths[n] for n in part.documents().tolist())]).tolist())


def test_copies_of_a_held_out_document_are_not_trained_on(tmp_path: Path) -> None:
    lengths = [5] * 1000  # the helper hashes by number modulo 65536: make copies by hand
    store = store_of(tmp_path, lengths, None, 1000)
    hashes = np.load(tmp_path / "00000.hashes.npy")
    lowest = int(np.argmin(hashes))
    hashes[[10, 500, 990]] = hashes[lowest]
    np.save(tmp_path / "00000.hashes.npy", hashes)
    training, held = split(TokenStore(tmp_path, store.manifest), Validation(share=1e-9))
    first = min(lowest, 10)
    assert held.documents().tolist() == [first]
    assert not {10, 500, 990, lowest} & set(training.documents().tolist())


@quick
@given(lengths=st.lists(st.integers(1, 30), min_size=0, max_size=80), capacity=st.integers(30, 50))
def test_first_fit_equals_dealing_one_piece_after_the_other(lengths: list[int], capacity: int) -> None:
    room: list[int] = []
    expected = [0] * len(lengths)
    for piece in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        row = next((n for n, left in enumerate(room) if left >= lengths[piece]), len(room))
        if row == len(room):
            room.append(capacity)
        room[row] -= lengths[piece]
        expected[piece] = row
    assert first_fit_decreasing(np.array(lengths, dtype=np.int64), capacity).tolist() == expected


@cache
def small_model() -> Any:
    import torch

    from lmplay.exp.gpt2ish.model import GPT2

    torch.manual_seed(0)
    return GPT2(max_len=32, num_heads=2, num_blocks=2, embed_dim=16).double().eval()


def test_document_packing_fills_rows_of_ordinary_text(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(5.5, 1.2, 4000).astype(int), 2, 20_000).tolist()
    part = whole(store_of(tmp_path, lengths, None, 500))
    for length in (128, 1024):
        packing = pack(part, "document", length, ring=True)
        assert packing.counts.tokens / (packing.num_rows * length) > 0.97
        stream = pack(part, "stream", length, ring=True)
        assert stream.counts.tokens / (stream.num_rows * length) > 0.99


def test_blocks_of_a_plan_keep_every_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowplan, "_BLOCK", 16)
    lengths = np.random.default_rng(1).integers(2, 90, 300).tolist()
    part = whole(store_of(tmp_path, lengths, None, 37))
    batch = all_rows(part, "document", 32)
    real = batch.targets != IGNORED
    assert real.sum() == sum(lengths) - len(lengths)
    assert len(set(batch.tokens[real].tolist())) == real.sum()
    assert real.mean() > 0.8


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(2, 80), min_size=2, max_size=10), masked=st.booleans())
def test_a_documents_logits_and_loss_when_packed_equal_those_when_alone(lengths: list[int], masked: bool) -> None:
    import torch
    from torch.nn import functional

    model = small_model()
    learned = [0.5] * len(lengths) if masked else None
    with tempfile.TemporaryDirectory() as folder:
        batch = all_rows(whole(store_of(Path(folder), lengths, learned, 4)), "document", 32)
    assert batch.documents is not None
    tokens, documents = torch.from_numpy(batch.tokens), torch.from_numpy(batch.documents)
    tokens[tokens == END] = 50256
    with torch.no_grad():
        packed = model.output_projection(model.hidden(tokens, documents=documents))
    for row in range(len(tokens)):
        for index in documents[row].unique().tolist():
            place = documents[row] == index
            targets = torch.from_numpy(batch.targets[row])[place]
            if (targets == IGNORED).all():  # padding
                continue
            with torch.no_grad():
                alone = model(tokens[row][place][None])[0]
            torch.testing.assert_close(packed[row][place], alone, rtol=1e-10, atol=1e-10)
            targets[targets == END] = 50256
            torch.testing.assert_close(
                functional.cross_entropy(packed[row][place], targets), functional.cross_entropy(alone, targets)
            )
