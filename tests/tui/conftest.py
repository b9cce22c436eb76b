"""Each test of the workbench has surroundings of its own: no settings of the person who runs it, one time zone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _fixed_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NO_COLOR", "SSH_CONNECTION", "SSH_TTY", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setenv("LMPLAY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LMPLAY_CONFIG", str(tmp_path / "workbench.toml"))
    monkeypatch.chdir(tmp_path)
