"""GPT-2 to and from the folders of transformers, which is the oracle here, with weights far from their initial ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from lmplay.base.base_model import LMBase
from lmplay.base.model_files import load_model, read_description, save_model
from lmplay.base.runner_list import get_runner
from lmplay.cli.main import app
from lmplay.generate import SamplingConfig, generate
from lmplay.interop.huggingface.exporting import export_gpt2
from lmplay.interop.huggingface.importing import import_gpt2
from lmplay.utils.errors import LMPlayError

TINY = {"num_blocks": 2, "embed_dim": 32, "num_heads": 2, "max_len": 48}
TOKENS = torch.randint(50257, (2, 40), generator=torch.Generator().manual_seed(1))


def spread_(model: nn.Module, std: float = 0.3) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, std, generator=generator)
    return model.eval()


def ours(experiment: str, **settings: Any) -> LMBase:
    model: LMBase = spread_(get_runner(experiment).build_model(**TINY, **settings))
    return model


def theirs(folder: Path, *, sharded: bool = False, **config: Any) -> Any:
    """A GPT-2 of transformers, saved in `folder`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = spread_(GPT2LMHeadModel(GPT2Config(n_positions=48, n_embd=32, n_layer=2, n_head=2, **config)))
    model.save_pretrained(folder, max_shard_size="2MB" if sharded else "5GB")
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        answer = model(TOKENS)
    found: torch.Tensor = answer if isinstance(answer, torch.Tensor) else answer.logits
    return found


@pytest.mark.parametrize("settings", [{}, {"gelu": "none"}, {"tied": False}])
def test_published_gpt2_equals_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    from transformers import GPT2LMHeadModel

    model = ours("gpt2", **settings)
    export_gpt2(model, tmp_path)
    torch.testing.assert_close(
        logits(GPT2LMHeadModel.from_pretrained(tmp_path).eval()), logits(model), atol=1e-4, rtol=1e-5
    )


def test_an_exported_baseline_is_loaded_by_transformers_with_its_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = ours("gpt2ish", ff_dropout=0.25)
    exported = export_gpt2(model, tmp_path)
    assert exported.left_out == ()
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(logits(loaded.eval()), logits(model), atol=1e-4, rtol=1e-5)
    assert (loaded.config.resid_pdrop, loaded.config.eos_token_id) == (0.25, 50256)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "def naïve(): # ½ of 𝄞\n    return  'three   spaces'"
    assert tokenizer(text)["input_ids"] == model.tokenizer.encode_ordinary(text)
    assert tokenizer.eos_token_id == 50256


@pytest.mark.parametrize("sharded", [False, True])
def test_an_imported_gpt2_writes_what_transformers_writes(sharded: bool, tmp_path: Path) -> None:
    expected = theirs(tmp_path / "gpt2", sharded=sharded)
    assert (tmp_path / "gpt2/model.safetensors.index.json").exists() == sharded
    imported = import_gpt2(tmp_path / "gpt2", tmp_path / "mine")
    assert (imported.experiment, imported.parameters) == ("gpt2", expected.num_parameters())
    model = load_model(tmp_path / "mine")
    torch.testing.assert_close(logits(model), logits(expected), atol=1e-4, rtol=1e-5)
    prompt = TOKENS[:1, :8]
    asked = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 50256, "eos_token_id": None}
    answer = expected.generate(prompt, attention_mask=torch.ones_like(prompt), **asked)[0, 8:].tolist()
    [result] = generate(model, [prompt[0].tolist()], SamplingConfig(temperature=0, max_tokens=20))
    assert result.tokens == answer


def test_the_first_releases_names_and_pickles_are_read(tmp_path: Path) -> None:
    expected = theirs(tmp_path)
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(tmp_path / "model.safetensors").items()}
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    import_gpt2(tmp_path, tmp_path / "mine")
    torch.testing.assert_close(logits(load_model(tmp_path / "mine")), logits(expected), atol=1e-4, rtol=1e-5)


def test_there_and_back_gives_the_same_bits_and_the_same_experiment(tmp_path: Path) -> None:
    model = ours("gpt2ish")
    export_gpt2(model, tmp_path / "theirs")
    import_gpt2(tmp_path / "theirs", tmp_path / "back")
    description = read_description(tmp_path / "back")
    assert description["experiment"] == "gpt2ish"
    assert {key: description["init_kwargs"][key] for key in TINY} == TINY
    back = load_model(tmp_path / "back").state_dict()
    assert all(torch.equal(tensor, back[name]) for name, tensor in model.state_dict().items())


def test_heads_that_only_train_are_left_out_by_name(tmp_path: Path) -> None:
    exported = export_gpt2(ours("gpt2ish_with_aux_loss"), tmp_path)
    assert "aux_block.attn.qkv.weight" in exported.left_out
    assert not any(name.startswith("blocks.") for name in exported.left_out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.blocks[1].ln2.register_forward_hook(lambda *a: a[2] * 1.01), "something else than GPT-2"),
        (lambda model: delattr(model, "ln"), "has no ln.weight"),
        (lambda model: delattr(model, "pos_embed"), "is no GPT-2"),
    ],
)
def test_what_computes_something_else_is_refused_and_nothing_is_written(
    change: Callable[[Any], object], message: str, tmp_path: Path
) -> None:
    model = ours("gpt2ish")
    change(model)
    with pytest.raises(LMPlayError, match=message):
        export_gpt2(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "only gpt2 can be imported"),
        ({"vocab_size": 50304}, "vocab_size = 50304"),
        ({"n_inner": 64}, "n_inner = 64"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"activation_function": "relu"}, "no kind of GELU"),
        ({"n_layer": 3}, r"lack h\.2"),
        ({"n_embd": 16, "n_inner": 64}, "do not fit its config.json"),
        ({"n_head": None}, "no 'n_head'"),
    ],
)
def test_what_is_no_gpt2_cannot_be_imported(change: dict[str, Any], message: str, gpt2: Path, tmp_path: Path) -> None:
    config = json.loads((gpt2 / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(gpt2 / "model.safetensors")
    with pytest.raises(LMPlayError, match=message):
        import_gpt2(tmp_path, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    theirs(folder)
    return folder


def test_damaged_weights_are_one_line(gpt2: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to(gpt2 / "config.json")
    with pytest.raises(LMPlayError, match=r"holds no model\.safetensors"):
        import_gpt2(tmp_path, tmp_path / "mine")
    (tmp_path / "model.safetensors").write_bytes((gpt2 / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(LMPlayError, match="damaged"):
        import_gpt2(tmp_path, tmp_path / "mine")
    save_file({"transformer.wte.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(LMPlayError, match="lack"):
        import_gpt2(tmp_path, tmp_path / "mine")


def test_the_commands_write_say_and_refuse(gpt2: Path, tmp_path: Path) -> None:
    def call(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    mine, out = tmp_path / "mine", tmp_path / "out"
    imported = call("import", gpt2, mine)
    assert imported.exit_code == 0, imported.output
    sizes = "--set model.max_len=48 --set model.num_heads=2 --set model.num_blocks=2 --set model.embed_dim=32"
    assert f"lmplay run gpt2 --initial-model {mine} {sizes}\n" in imported.output
    exported = call("export", mine, out, "--json")
    answer = json.loads(exported.output)
    assert (answer["folder"], answer["left_out"]) == (str(out), [])
    assert 0 <= answer["difference"] < 1e-3
    again = call("export", mine, out)
    assert isinstance(again.exception, LMPlayError)
    assert "is there already" in str(again.exception)
    save_model(ours("gpt2ish_with_aux_loss"), tmp_path / "aux", experiment="gpt2ish_with_aux_loss")
    assert "left out" in call("export", tmp_path / "aux", tmp_path / "aux_out").output
