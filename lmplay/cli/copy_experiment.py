"""Copying an experiment: its folder, with its class and its registered names renamed. Called by `lmplay new`.

Renaming works on tokens, so that layout and comments stay and no word inside of another is touched.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import shutil
import tempfile
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenInfo

from lmplay.base.discovery import EXPERIMENTS_PACKAGE
from lmplay.base.runner_list import MODEL_RUNNERS, get_runner
from lmplay.utils.errors import LMPlayError, WrongUsageError


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What was made: the folder, the class of the model, and the registered names, that of the experiment first."""

    folder: Path
    class_name: str
    names: list[str]


@dataclass(frozen=True, kw_only=True)
class Renaming:
    """Old to new: identifiers, whole strings, and the dotted name of the package."""

    identifiers: Mapping[str, str]
    names: Mapping[str, str]
    package: tuple[str, str]


def copy_experiment(source: str, name: str, into: Path) -> Copied:
    """Copy the folder that registers `source` to `into / name`.

    Raises `WrongUsageError` for a name that cannot be used or is taken, `LMPlayError` where it cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise WrongUsageError(f"{name!r} cannot name an experiment; use small letters, digits and _, a letter first")
    runner = get_runner(source)
    entry = MODEL_RUNNERS[source]
    folder = Path(entry.file).parent
    siblings = [other.name for other in MODEL_RUNNERS.values() if Path(other.file).parent == folder]
    names = renamed(siblings, folder.name, name)
    for new in names.values():
        if new in MODEL_RUNNERS:
            raise WrongUsageError(f"{new!r} is taken: {MODEL_RUNNERS[new].place}; choose another name")
    target = into / name
    if target.exists():
        raise WrongUsageError(f"{target} is there already; choose another name")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    renaming = Renaming(
        identifiers={runner.model_class.__name__: class_name},
        names=names,
        package=(entry.module.rpartition(".")[0], f"{EXPERIMENTS_PACKAGE}.{name}"),
    )
    try:
        _write(folder, target, renaming)
    except OSError as error:
        raise LMPlayError(f"{target} cannot be written: {error}; choose another folder with --into") from error
    first = [new for new in names.values() if new == name]
    return Copied(folder=target, class_name=class_name, names=first + [new for new in names.values() if new != name])


def renamed(names: Sequence[str], old: str, new: str) -> dict[str, str]:
    """The new name of each registered name: `old` inside of it replaced, or `new` put before it.

    >>> renamed(["gpt2ish", "gpt2ish_med", "test_runner"], "gpt2ish", "mine")
    {'gpt2ish': 'mine', 'gpt2ish_med': 'mine_med', 'test_runner': 'mine_test_runner'}

    An experiment without a version of its folder's name gives it to its first version.
    """
    result = {name: name.replace(old, new) if old in name else f"{new}_{name}" for name in names}
    if new not in result.values() and names:
        result[names[0]] = new
    return result


def _write(folder: Path, target: Path, renaming: Renaming) -> None:
    """The copy appears in one step, whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as temporary:
        draft = Path(temporary) / target.name
        shutil.copytree(folder, draft, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        (draft / "__init__.py").touch()
        for file in draft.rglob("*.py"):
            file.write_text(rename(file.read_text(encoding="utf-8"), renaming), encoding="utf-8")
        package = draft / "__init__.py"
        if _is_docstring_alone(package.read_text(encoding="utf-8")):
            package.write_text(f'"""A copy of {folder.name}: say here what is different."""\n', encoding="utf-8")
        draft.rename(target)


def _is_docstring_alone(code: str) -> bool:
    body = ast.parse(code).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def rename(code: str, renaming: Renaming) -> str:
    """`code` with the renaming done, and with descriptions that say what they are: those of a copy."""
    lines = code.splitlines(keepends=True)
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)
    ]
    for start, end, text in sorted(_edits(tokens, renaming), reverse=True):
        head, tail = lines[start[0] - 1][: start[1]], lines[end[0] - 1][end[1] :]
        lines[start[0] - 1 : end[0]] = [head + text + tail]
    return "".join(lines)


Place = tuple[int, int]


def _edits(tokens: Sequence[TokenInfo], renaming: Renaming) -> Iterator[tuple[Place, Place, str]]:
    """(from, to, new text), no two of which overlap."""
    registered = ""
    position = 0
    old_package = _dotted(renaming.package[0])
    while position < len(tokens):
        token = tokens[position]
        following = [other.string for other in tokens[position : position + len(old_package)]]
        step = 1
        if following == old_package and (position == 0 or tokens[position - 1].string != "."):
            step = len(old_package)
            yield token.start, tokens[position + step - 1].end, renaming.package[1]
        elif token.type == tokenize.NAME and token.string in renaming.identifiers:
            yield token.start, token.end, renaming.identifiers[token.string]
        elif token.string == "description" and position + 2 < len(tokens) and tokens[position + 1].string == "=":
            step = 2
            while tokens[position + step].type == tokenize.STRING:
                step += 1
            if step > 2 and registered:
                text = f'"Copy of {registered}; say here what is different."'
                yield tokens[position + 2].start, tokens[position + step - 1].end, text
        elif token.type == tokenize.STRING and (value := _value(token.string)) in renaming.names:
            registered = value
            yield token.start, token.end, f'"{renaming.names[value]}"'
        position += step


def _dotted(name: str) -> list[str]:
    """`"a.b"` -> `["a", ".", "b"]`, as the tokenizer gives it."""
    return re.split(r"(\.)", name)


def _value(literal: str) -> str:
    """The text of a string literal; nothing for bytes and formatted strings."""
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        return ""
    return value if isinstance(value, str) else ""
