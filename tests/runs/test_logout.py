"""Where systemd would end a detached worker at logout, that is noticed; elsewhere nothing is said."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from lmplay.runs.logout import logout_notice


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a machine on which logging out kills, seen from a login session of an ordinary user."""
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    for name, text in {
        "etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=no\n",
        "etc/systemd/logind.conf.d/50-kill.conf": "[Login]\nKillUserProcesses=yes\n",
        "proc/self/cgroup": "0::/user.slice/user-1000.slice/session-3.scope\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_session_that_will_be_killed_is_told_how_to_survive(system: Path) -> None:
    notice = logout_notice("lmplay run x", root=system)
    assert notice is not None
    assert "systemd-run --user --scope lmplay run x" in notice
    assert "enable-linger" in notice


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("etc/systemd/logind.conf.d/60-no.conf", "[Login]\nKillUserProcesses=no\n"),
        ("etc/systemd/logind.conf.d/60-me.conf", "[Login]\nKillExcludeUsers=root ada\n"),
        ("etc/systemd/logind.conf.d/60-only.conf", "[Login]\nKillOnlyUsers=guest\n"),
        ("var/lib/systemd/linger/ada", ""),
        ("proc/self/cgroup", "0::/system.slice/ssh.service\n"),
        ("proc/self/cgroup", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-7.scope\n"),
    ],
)
def test_nothing_is_said_where_nothing_would_be_killed(system: Path, name: str, text: str) -> None:
    (system / name).parent.mkdir(parents=True, exist_ok=True)
    (system / name).write_text(text)
    assert logout_notice(root=system) is None


def test_machine_without_systemd_is_left_in_peace(tmp_path: Path) -> None:
    assert logout_notice(root=tmp_path) is None
