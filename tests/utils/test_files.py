"""Files are replaced whole, and JSON holds no NaN."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from lmplay.utils.files import to_json, write_atomically


def test_a_failed_write_leaves_the_old_file_and_no_remainder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:  # noqa: ARG001 - the shape of fsync
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_files_are_readable_for_colleagues_as_the_umask_says_which_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o022)
    try:
        with monkeypatch.context() as inside:
            inside.delattr(os, "umask")  # asking for it opens, for a moment, what all other threads write to everyone
            write_atomically(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_numbers_that_json_has_not_become_strings() -> None:
    row = {"a": math.nan, "b": [math.inf, -math.inf], "c": {"d": 1.5}, "e": (1, None)}
    assert json.loads(to_json(row)) == {"a": "NaN", "b": ["Infinity", "-Infinity"], "c": {"d": 1.5}, "e": [1, None]}
