"""The command answers at once: no torch before a command needs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lmplay import cli
from lmplay.cli.commands import COMMANDS, LoadedWhenAsked

LMPlay = Callable[..., subprocess.CompletedProcess[str]]
SLOW = ("torch", "numpy", "datasets", "transformers")


def modules_after(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_needs_no_torch() -> None:
    loaded = modules_after(
        "import sys\nsys.argv = ['lmplay', '--help']\nfrom lmplay.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert "typer" in loaded
    assert not loaded & {*SLOW, "pydantic", "rich", "psutil"}


def test_the_help_names_the_commands_there_are(lmplay: LMPlay) -> None:
    registering = {
        file.stem for file in Path(cli.__file__).parent.glob("*.py") if "\ndef register(" in file.read_text("utf-8")
    }
    assert {file for file, _ in COMMANDS.values()} == registering - {"runs_show"}  # a part of `lmplay runs`
    for name in COMMANDS:
        assert LoadedWhenAsked()[name].help, name
    written = lmplay("--help").stdout.partition("Commands:")[2]
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in written
        assert f"{line}\n" in written  # whole, on one line
    assert lmplay().stdout == lmplay("--help").stdout


def test_run_directories_plans_and_settings_need_no_torch() -> None:
    loaded = modules_after("import lmplay, lmplay.runs, lmplay.plans, lmplay.train.request, lmplay.utils")
    assert "pydantic" in loaded
    assert not loaded & set(SLOW)


def test_stats_and_data_need_no_torch() -> None:
    assert "torch" not in modules_after("import lmplay.data, lmplay.stats")


def test_version_is_printed(lmplay: LMPlay) -> None:
    done = lmplay("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("lmplay 0.")


def test_the_tokenizer_needs_no_network_once_lmplay_is_imported() -> None:
    program = (
        "import lmplay, tiktoken, socket\n"
        "socket.socket.connect = None\n"
        "encoding = tiktoken.get_encoding('gpt2')\n"
        "assert encoding.n_vocab == 50257\n"
        "assert encoding.decode(encoding.encode('Grüße, 世界 <|x|>')) == 'Grüße, 世界 <|x|>'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
