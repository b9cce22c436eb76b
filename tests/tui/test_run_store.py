"""What a screen is told of a folder of runs, tick by tick."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lmplay.runs import RunWriter, create_run
from lmplay.utils.errors import LMPlayError
from lmplay_tui.services import run_store
from lmplay_tui.services.run_store import RunStore


def test_live_runs_are_counted_and_a_folder_that_cannot_be_listed_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    store = RunStore(tmp_path, clock=lambda: now)
    one, two = (create_run("fake", name=name, root=tmp_path) for name in ("one", "two"))
    with RunWriter(one) as writer:
        writer.status(state="running")
        assert (len(store.look().runs), store.look().live) == (2, 1)
        assert store.look() is not store.look(), "a live run is looked at anew each time"

        def refuse(root: Path) -> list[Path]:
            raise LMPlayError(f"the runs in {root} can't be listed: Stale file handle")

        with monkeypatch.context() as broken:
            broken.setattr(run_store, "list_runs", refuse)
            now += 100
            gone = store.look()
            assert (gone.runs, gone.by_name, gone.live) == ((), {}, 0)
            assert "Stale file handle" in gone.problem
        now += 100
        back = store.look()
        assert (sorted(back.by_name), back.live, back.problem) == (["one", "two"], 1, "")
        writer.status(state="done")
    assert store.look().live == 0
    shutil.rmtree(two)
    now += 100
    assert list(store.look().by_name) == ["one"]
    assert store.look() is store.look(), "nothing is new"
