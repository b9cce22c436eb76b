"""The documents: what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from lmplay.checks import CHECKS
from lmplay.cli.main import app

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_check_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "checks.md").read_text(), flags=re.MULTILINE)
    assert rows == list(CHECKS)


@pytest.mark.parametrize(
    "page",
    [
        "adding_an_experiment",
        "checks",
        "models",
        "performance",
        "reproducibility",
        "training",
        "transformers",
        "verified",
    ],
)
def test_commands_and_links_of_the_page_exist(page: str) -> None:
    text = (DOCS / f"{page}.md").read_text()
    known = typer.main.get_command(app).commands
    for command in re.findall(r"^lmplay (\w+)", text, flags=re.MULTILINE):
        assert command in known
    for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", text):
        assert (DOCS / link).exists(), link
    for test in re.findall(r"`(tests/\w+/\w+\.py)`", text):
        assert (DOCS.parent / test).exists(), test
