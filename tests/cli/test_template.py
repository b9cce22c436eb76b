"""The reference document's "Using as a Template", typed as it stands, in a checkout of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.warm import client as warm

REPO = Path(__file__).resolve().parents[2]

MODEL = """# lmplay/exp/my_experiment/model.py
from lmplay.base.base_model import LMBase
from lmplay.modules import Block
from lmplay.utils import to_name
import torch
import torch.nn as nn
import tiktoken

class MyModel(LMBase):
    def __init__(self,
                 max_len=1024,
                 num_heads=12,
                 num_blocks=6,
                 embed_dim=768,
                 # Your custom parameters
                 my_custom_param=True,
                 **ignore):
        super().__init__(to_name('my_experiment',
                                 num_blocks=num_blocks,
                                 max_len=max_len),
                        max_len=max_len,
                        num_heads=num_heads,
                        num_blocks=num_blocks,
                        embed_dim=embed_dim,
                        my_custom_param=my_custom_param)

        self.tokenizer = tiktoken.get_encoding("gpt2")
        vocab_size = self.tokenizer.n_vocab

        self.tok_embed = nn.Embedding(vocab_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, max_len, embed_dim))
        self.special_layer = nn.Linear(embed_dim, embed_dim)
        self.blocks = nn.ModuleList([Block(embed_dim, num_heads) for _ in range(num_blocks)])
        self.ln = nn.LayerNorm(embed_dim)
        self.fc = nn.Linear(embed_dim, vocab_size, bias=False)

    def forward(self, x, cache=None):
        T = x.shape[1]
        h = self.tok_embed(x) + self.pos_embed[:, :T]
        h = self.special_layer(h)
        for block in self.blocks:
            h = block(h)
        return self.fc(self.ln(h))
"""

VERSIONS = """# lmplay/exp/my_experiment/versions.py
from lmplay.base.base_model import BasicModelRunner
from .model import MyModel
from lmplay.base.runner_list import expose_runner

@expose_runner('my_experiment',
               description='My custom experiment description')
def runner(*args, **kwargs):
    return BasicModelRunner(MyModel,
                           *args,
                           overrides=dict(),
                           **kwargs)

# Optional: Add other versions
@expose_runner('my_experiment_large',
               description='Larger version of my experiment')
def runner_large(*args, **kwargs):
    return BasicModelRunner(MyModel,
                           *args,
                           overrides=dict(num_blocks=24,
                                         embed_dim=1024,
                                         num_heads=16),
                           **kwargs)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package and the plans, as a clone would have them."""
    folder = tmp_path / "checkout"
    for name in ("lmplay", "plans"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def shell(checkout: Path, *arguments: str, module: str = "lmp_trainer") -> subprocess.CompletedProcess[str]:
    program = f"import sys; from lmplay.cli.{module} import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "120"}
    return warm.run(["-c", program, *arguments], cwd=checkout, env=environment)


@pytest.mark.slow
def test_every_step_of_the_template_works_as_typed(checkout: Path, runs_folder: Path) -> None:
    experiment = checkout / "lmplay/exp/my_experiment"
    shutil.copytree(checkout / "lmplay/exp/gpt2ish", experiment)
    (experiment / "model.py").write_text(MODEL)
    (experiment / "versions.py").write_text(VERSIONS)
    with (checkout / "lmplay/__init__.py").open("a") as file:
        file.write("\n# Add at the end of lmplay/__init__.py\nimport lmplay.exp.my_experiment.versions\n")

    listed = shell(checkout, "--exp", "list")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert any(line.split(maxsplit=1) == ["my_experiment", "My custom experiment description"] for line in lines)
    assert any(line.startswith("my_experiment_large ") for line in lines)
    assert any(line.startswith("gpt2ish ") for line in lines)
    assert listed.stderr == ""

    described = shell(checkout, "--exp", "my_experiment", "--describe")
    assert described.returncode == 0, described.stderr
    assert "MyModel" in described.stdout
    assert "special_layer" in described.stdout

    small_plan = checkout / "my_plan.json"
    docs = {"source": "builtin", "args": {"name": "pydocs"}, "validation": {"share": 0.1, "max_tokens": 512}}
    stage = {"name": "only", "datasets": {"docs": 1.0}, "samples": 6, "train": {"batch_size": 2}}
    small_plan.write_text(json.dumps({"version": 1, "datasets": {"docs": docs}, "stages": [stage]}))
    tiny = ("--num-blocks", "2", "--embed-dim", "32", "--num-heads", "2", "--max-len", "64")
    trained = shell(
        checkout,
        *("--exp", "my_experiment", "--device", "cpu", "--mini-batch-size", "1"),
        *(*tiny, "--training-plan", str(small_plan), "--model", "mine"),
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert (runs_folder / "mine/checkpoints/latest/model.safetensors").is_file()


def test_a_copy_that_was_not_edited_yet_is_told_whose_names_it_took(checkout: Path) -> None:
    shutil.copytree(checkout / "lmplay/exp/gpt2ish", checkout / "lmplay/exp/my_experiment")
    listed = shell(checkout, "--exp", "list")
    assert listed.returncode == 0
    assert "gpt2ish/versions.py" in listed.stderr
    assert "my_experiment/versions.py" in listed.stderr


def test_a_broken_import_line_breaks_nothing_else(checkout: Path) -> None:
    experiment = checkout / "lmplay/exp/my_experiment"
    shutil.copytree(checkout / "lmplay/exp/gpt2ish", experiment)
    (experiment / "versions.py").write_text("from .model import NoSuchModel\n")
    with (checkout / "lmplay/__init__.py").open("a") as file:
        file.write("\nimport lmplay.exp.my_experiment.versions\n")
    helped = shell(checkout, "--help", module="main")
    assert helped.returncode == 0, helped.stderr
    listed = shell(checkout, "list", module="main")
    assert listed.returncode == 0
    assert "gpt2ish " in listed.stdout
    assert "NoSuchModel" in listed.stderr


def test_gradients_are_checked_after_a_real_step(checkout: Path) -> None:
    experiment = checkout / "lmplay/exp/forgetful"
    experiment.mkdir()
    (experiment / "__init__.py").touch()
    (experiment / "versions.py").write_text(
        "import torch\n"
        "from lmplay.base.base_model import BasicModelRunner\n"
        "from lmplay.base.runner_list import expose_runner\n"
        "from lmplay.exp.gpt2ish.model import GPT2\n\n"
        "class Forgetful(GPT2):\n"
        "    def __init__(self, max_len=64, num_heads=2, num_blocks=1, embed_dim=16, **ignore):\n"
        "        super().__init__(max_len=max_len, num_heads=num_heads, num_blocks=num_blocks, embed_dim=embed_dim)\n"
        "        self.unused_head = torch.nn.Linear(16, 3)\n"
        "        self.ln.weight.requires_grad = False\n\n"
        "@expose_runner('forgetful', description='has a head that nothing uses')\n"
        "def runner(*args, **kwargs):\n"
        "    return BasicModelRunner(Forgetful, *args, overrides=dict(), **kwargs)\n"
    )
    checked = shell(checkout, "--exp", "forgetful", "--check-grads", "--device", "cpu")
    assert checked.returncode == 1, checked.stderr
    assert "no gradient: unused_head.weight (3, 16)" in checked.stdout
    assert "no gradient: unused_head.bias (3,)" in checked.stdout
    assert "frozen: ln.weight (16,)" in checked.stdout
    assert "forgetful" in checked.stdout
    sound = shell(checkout, "--exp", "test_runner", "--check-grads", "--device", "cpu")
    assert sound.returncode == 0, sound.stdout
    assert "0 got none, 0 are frozen" in sound.stdout
