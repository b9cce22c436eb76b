"""Whether systemd would end a detached worker when its user logs out, and what to do about it."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

# In the order in which later ones win; within a folder by name.
_CONFIGS = (
    "usr/lib/systemd/logind.conf",
    "etc/systemd/logind.conf",
    "usr/lib/systemd/logind.conf.d",
    "run/systemd/logind.conf.d",
    "etc/systemd/logind.conf.d",
)


def logout_notice(command: str = "lmplay ...", *, root: Path = Path("/")) -> str | None:
    """A line for people when logging out would kill what this process starts; None when it wouldn't, or can't be known.

    That is so where logind is set to `KillUserProcesses=yes`, this process belongs to a login session, and the user
    doesn't linger. `root` is where the system's files are looked for.
    """
    if not _kills_user_processes(root) or not _in_login_session(root):
        return None
    if (root / "var/lib/systemd/linger" / getpass.getuser()).exists():
        return None
    return (
        "systemd is set to end your processes when you log out. To keep the run: `loginctl enable-linger`, and start "
        f"it as `systemd-run --user --scope {command}`"
    )


def _kills_user_processes(root: Path) -> bool:
    kills, excluded, only = False, {"root"}, set[str]()
    for name in _CONFIGS:
        place = root / name
        for file in sorted(place.glob("*.conf")) if place.is_dir() else [place]:
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            for key, value in re.findall(
                r"(?m)^\s*(KillUserProcesses|KillExcludeUsers|KillOnlyUsers)\s*=\s*(.*?)\s*$", text
            ):
                if key == "KillUserProcesses":
                    kills = value.lower() in ("yes", "true", "on", "1")
                elif key == "KillExcludeUsers":
                    excluded = set(value.split())
                else:
                    only = set(value.split())
    user = getpass.getuser()
    return kills and user not in excluded and (not only or user in only)


def _in_login_session(root: Path) -> bool:
    try:
        return re.search(r"/session-[^/]+\.scope", (root / "proc/self/cgroup").read_text()) is not None
    except OSError:
        return False
