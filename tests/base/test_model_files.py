"""Model files: the same bits come back, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import load_model, save_model
from lmplay.base.runner_list import get_runner
from lmplay.utils.errors import LMPlayError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = get_runner("test_runner").build_model(embed_dim=8, max_len=16, num_blocks=1, attn_dropout=0.5)
    save_model(model, tmp_path / "model", experiment="test_runner")
    return tmp_path / "model"


def test_a_loaded_model_gives_the_same_logits_and_is_ready_to_use(saved: Path) -> None:
    torch.manual_seed(0)
    model = get_runner("test_runner").build_model(embed_dim=8, max_len=16, num_blocks=1, attn_dropout=0.5).eval()
    before = torch.get_rng_state()
    loaded = load_model(saved)
    assert torch.equal(before, torch.get_rng_state())
    assert not loaded.training
    assert loaded.init_kwargs == model.init_kwargs
    tokens = torch.arange(16)[None]
    assert torch.equal(loaded(tokens), model(tokens))
    assert json.loads((saved / "model.json").read_text()) == {
        "format": 1,
        "experiment": "test_runner",
        "model_class": "lmplay.exp.gpt2ish.model.GPT2",
        "init_kwargs": model.init_kwargs,
    }


class WithBuffer(LMBase):
    """Holds a table that is not saved, and ties two layers."""

    def __init__(self, width: int = 4, **ignore: object) -> None:
        super().__init__("with_buffer", width=width)
        self.register_buffer("table", torch.arange(width) * 2.0, persistent=False)
        self.embed = nn.Embedding(9, width)
        self.fc = nn.Linear(width, 9, bias=False)
        self.fc.weight = self.embed.weight


def test_tied_weights_and_tables_that_are_not_saved_survive(tmp_path: Path) -> None:
    model = WithBuffer(6)
    save_model(model, tmp_path, experiment="none")
    description = json.loads((tmp_path / "model.json").read_text())
    loaded = load_model(tmp_path)
    assert description["model_class"].endswith("test_model_files.WithBuffer")
    assert isinstance(loaded, WithBuffer)
    assert torch.equal(loaded.table, model.table)
    assert torch.equal(loaded.fc.weight, model.fc.weight)
    assert loaded.fc.weight is loaded.embed.weight


def edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}"), "is damaged"),
        (lambda folder: (folder / "model.json").unlink(), "holds no model.json"),
        (lambda folder: (folder / "model.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "model.json").write_text("[]"), "does not describe a model"),
        (edit(format=2), "newer than this lmplay"),
        (edit(init_kwargs=None), "has no 'init_kwargs'"),
        (edit(model_class="gone.model.Gone", experiment="gone"), "which is not here"),
        (edit(model_class="collections.OrderedDict"), "which is not a model"),
        (edit(init_kwargs={"embed_dim": 16, "num_heads": 2, "num_blocks": 1, "max_len": 16}), "do not fit GPT2"),
    ],
)
def test_damage_is_named(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved)
    with pytest.raises(LMPlayError, match=message):
        load_model(saved)


def test_a_model_class_that_moved_is_found_through_its_experiment(saved: Path) -> None:
    edit(model_class="lmplay.exp.gpt2ish.old_place.GPT2")(saved)
    assert type(load_model(saved)).__name__ == "GPT2"


def test_a_model_whose_file_is_being_edited_is_said_to_be_not_here(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unfinished.py").write_text("def (:")
    monkeypatch.syspath_prepend(tmp_path)
    edit(model_class="unfinished.Model", experiment="gone")(saved)
    with pytest.raises(LMPlayError, match=r"not here.*invalid syntax"):
        load_model(saved)


def test_a_setting_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    model = WithBuffer(4)
    model.init_kwargs["activation"] = nn.GELU
    with pytest.raises(LMPlayError, match="the setting 'activation' of WithBuffer"):
        save_model(model, tmp_path / "model", experiment="none")
    assert not (tmp_path / "model").exists()
