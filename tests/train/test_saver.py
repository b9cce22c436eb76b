"""Saving in the background: the step is not held, what is saved cannot change any more, and memory is bounded."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lmplay.train.keep import checkpoint, saver
from lmplay.train.keep.checkpoint import About, Content, load_weights, write_checkpoint
from lmplay.train.keep.saver import BackgroundSaver


def content(step: int, weight: torch.Tensor) -> Content:
    about = About(step=step, samples=step, tokens=step, stage="learn")
    return Content(about=about, description={}, weights={"weight": weight}, state={"progress": {}})


def test_the_training_goes_on_while_its_snapshot_is_written(tmp_path: Path) -> None:
    may_end, copies = threading.Event(), []

    def wait(_: Path, written: Content) -> None:
        copies.append(written.weights["weight"])
        assert may_end.wait(60)

    background = BackgroundSaver(tmp_path, on_written=wait, heed=lambda: None)
    weight = torch.ones(1000)
    background.save(content(1, weight))
    weight.add_(1)
    may_end.set()
    background.settle()
    assert torch.equal(load_weights(tmp_path / "1")["weight"], torch.ones(1000))
    assert copies[0].data_ptr() != weight.data_ptr()


def test_where_a_snapshot_takes_too_much_memory_the_training_waits_and_nothing_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.ones(1000)
    monkeypatch.setattr(saver.psutil, "virtual_memory", lambda: SimpleNamespace(available=1.5 * weight.nbytes))
    written: list[Content] = []
    background = BackgroundSaver(tmp_path, on_written=lambda _, what: written.append(what), heed=lambda: None)
    background.save(content(1, weight))
    assert [what.weights["weight"].data_ptr() for what in written] == [weight.data_ptr()]
    assert torch.equal(load_weights(tmp_path / "1")["weight"], weight)


def test_every_name_that_leads_to_a_checkpoint_is_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may otherwise keep the files and lose the folders' entries for them."""
    synced: list[str] = []
    monkeypatch.setattr(checkpoint, "sync_folder", lambda folder: synced.append(folder.name))
    (shards := tmp_path / "gathered").mkdir()
    (shards / "part").write_bytes(b"1")
    write_checkpoint(tmp_path / "checkpoints", dataclasses.replace(content(1, torch.ones(1)), shards=shards))
    before, *_, last = synced
    assert (before, last) == (tmp_path.name, "checkpoints")
    assert "shards" in synced
    assert len(synced) == 4  # and the checkpoint's own folder, before it gets its name
