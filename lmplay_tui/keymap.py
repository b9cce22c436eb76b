"""Keys from a file: `~/.config/lmplay/workbench.toml`, or where $LMPLAY_CONFIG says.

[keys]
"steer.pause" = "f4"          # the id of an action; lmplay-tui --keys lists them all
"grid.down" = "down,j,ctrl+n"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean
from lmplay_tui.actions import ACTIONS, BY_ID, FORBIDDEN_KEYS


def read_keymap(path: Path) -> dict[str, str]:
    """`{action id: keys}` of the file; nothing when it isn't there. `WrongUsageError` names what is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsageError(f"{path} can't be read: {error}") from error
    import tomllib  # only those who have such a file wait for it

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WrongUsageError(f"{path} is not TOML: {error}") from error
    keys = content.get("keys", {})
    if not isinstance(keys, Mapping):
        raise WrongUsageError(f"{path}: [keys] is a table of action = keys")
    for name, value in keys.items():
        if name not in BY_ID:
            raise WrongUsageError(f"{path}: there is no action {name!r}{did_you_mean(name, BY_ID)}")
        if not isinstance(value, str) or not value.strip():
            raise WrongUsageError(f"{path}: {name} takes keys as a text, for example {BY_ID[name].keys!r}")
        eaten = FORBIDDEN_KEYS & {key.strip() for key in value.split(",")}
        if eaten:
            raise WrongUsageError(
                f"{path}: {name}: terminals never pass on {', '.join(sorted(eaten))}; use another key"
            )
    return dict(keys)


def key_list(keymap: Mapping[str, str]) -> Iterator[str]:
    """Every action with its keys, as a file that `read_keymap` reads: `lmplay-tui --keys`."""
    yield "[keys]"
    place = ""
    for action in ACTIONS:
        if action.place != place:
            place = action.place
            yield f"\n# {place}"
        keys = keymap.get(action.id, action.keys)
        yield f'"{action.id}" = "{keys}"'.ljust(44) + f"  # {action.help}"


_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "colon": ":",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "comma": ",",
    "full_stop": ".",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "number_sign": "#",
    "escape": "esc",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "delete": "del",
}
_ARROWS = {"up": "↑", "down": "↓", "left": "←", "right": "→", "enter": "⏎", "space": "␣", "tab": "⇥"}


def key_name(key: str, *, ascii_only: bool = False) -> str:
    """A key as it is shown: `ctrl+p` as `^p`, arrows as arrows."""
    modifier, _, name = key.rpartition("+")
    name = _NAMES.get(name, name)
    if not ascii_only:
        name = _ARROWS.get(name, name)
    prefix = {"": "", "ctrl": "^", "shift": "⇧" if not ascii_only else "shift-", "alt": "alt-"}.get(
        modifier, modifier + "-"
    )
    return prefix + name
