"""The hub: datasets in its layout from a local folder, and what happens where there is no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lmplay.data import open_stage, open_validation
from lmplay.data.shards.prepare import locate, prepare
from lmplay.data.sources import hub, open_source
from lmplay.plans import DatasetSpec, Plan, load_plan, parse_plan
from lmplay.utils.errors import LMPlayError
from tests.data.fake_hub import COMMIT, TOKEN, fake_hub

README = """---
configs:
- config_name: tales
  data_files:
  - split: train
    path: tales/train-*.parquet
  - split: validation
    path: tales/validation-*.parquet
- config_name: other
  data_files: other/*.parquet
---
# Tales
"""


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMPLAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tales(tmp_path: Path) -> Path:
    """A dataset as `push_to_hub` lays it out: a card with two configurations, parquet shards, two splits."""
    folder = tmp_path / "tales"
    for name, first, count in (
        ("tales/train-00000-of-00002", 0, 1500),
        ("tales/train-00001-of-00002", 1500, 1500),
        ("tales/validation-00000-of-00001", 3000, 40),
        ("other/a", 9000, 3),
    ):
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"id": n, "text": f"Once upon a time there were {n} mice and a cat."} for n in range(first, first + count)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=400)
    (folder / "README.md").write_text(README)
    return folder


def dataset(**args: Any) -> dict[str, Any]:
    return {"source": "hub", "args": {"path": "tales", "name": "tales", **args}, "validation": {"split": "validation"}}


def plan_of(folder: Path, spec: dict[str, Any]) -> Plan:
    stages = [{"name": "s", "datasets": {"d": 1}, "epochs": 1}]
    return parse_plan({"version": 1, "datasets": {"d": spec}, "stages": stages}, name="t", folder=folder)


@pytest.mark.usefixtures("tales")
def test_a_local_folder_in_the_hubs_layout_with_its_own_validation_split(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, dataset())
    stage = open_stage(plan, 0, sequence_length=64, packing="document")
    assert stage.summaries()[0].documents == 3000
    validation = open_validation(plan, sequence_length=64, packing="pad")
    assert validation.num_rows == 40


@pytest.mark.usefixtures("tales")
def test_reading_goes_on_from_any_cursor(tmp_path: Path) -> None:
    spec = DatasetSpec.model_validate(dataset())

    def batches(cursor: Any = None) -> list[Any]:
        return list(open_source(spec, columns=["text"], split=None, folder=tmp_path).batches(cursor))

    texts = [row.values["text"] for batch in batches() for row in batch.rows]
    assert len(texts) == 3000
    done = 0
    for batch in batches():
        done += len(batch.rows)
        cursor = json.loads(json.dumps(batch.cursor))
        assert [row.values["text"] for batch in batches(cursor) for row in batch.rows] == texts[done:]
        assert [row.number for batch in batches(cursor) for row in batch.rows] == list(range(done + 1, 3001))


def test_the_key_covers_the_files_the_split_and_the_configuration(tmp_path: Path, tales: Path) -> None:
    def key(**args: Any) -> str:
        return locate(DatasetSpec.model_validate(dataset(**args)), folder=tmp_path).key

    keys = {key(), key(split="validation"), key(name="other")}
    path = tales / "tales" / "train-00000-of-00002.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["new"]}), path)
    assert len({*keys, key()}) == 4


@pytest.mark.usefixtures("tales")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"args": {"path": "tales", "name": "tale"}}, "tale"),
        ({"args": {"path": "tales", "name": "tales", "split": "nothing"}}, "nothing"),
        ({"fields": {"text": "txt"}}, "there is no column 'txt'; did you mean text"),
    ],
)
def test_what_is_not_in_the_dataset_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(LMPlayError, match=message) as caught:
        prepare(DatasetSpec.model_validate({**dataset(), **change}), folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_quickstart_is_named_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(LMPlayError, match="--plan quickstart") as caught:
        open_stage(load_plan("default"), 0, sequence_length=128)
    assert time.monotonic() - started < 30
    assert "\n" not in str(caught.value)


def test_a_dataset_stays_at_the_commit_where_it_was_met(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commits = iter(["a" * 40, "b" * 40])
    asked: list[Any] = []

    def ask(_: hub.HubSource, revision: str | None) -> str:
        asked.append(revision)
        return next(commits)

    monkeypatch.setattr(hub.HubSource, "_ask_hub", ask)

    def source(**args: Any) -> hub.HubSource:
        return hub.HubSource({"path": "who/what", **args}, columns=["text"], split=None, folder=tmp_path)

    assert source().identity()["revision"] == "a" * 40
    assert source().identity()["revision"] == "a" * 40
    source().refresh()
    assert source().identity()["revision"] == "b" * 40
    assert source(revision="c" * 40).identity()["revision"] == "c" * 40
    assert asked == [None, None]


def test_gated_missing_and_unreachable_datasets_are_told_apart() -> None:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    # Made without their response, which only their own message needs.
    gated, missing = (kind.__new__(kind) for kind in (GatedRepoError, RepositoryNotFoundError))
    assert "gated" in hub._no_dataset("a/b", gated)
    wrapped = RuntimeError("a reader's own words")
    wrapped.__cause__ = gated
    assert hub._is_gated(wrapped)
    assert not hub._is_gated(RuntimeError("a reader's own words"))
    assert "there is no dataset 'a/b'" in hub._no_dataset("a/b", missing)
    assert "--plan quickstart" in hub._no_dataset("a/b", OSError("[Errno -2] Name or service not known"))


READ = """
import json, os, sys
from pathlib import Path
from lmplay.data.shards.prepare import prepare
from lmplay.plans import DatasetSpec
from lmplay.utils.errors import LMPlayError

def read(limit, token=None, split=None):
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    try:
        spec = DatasetSpec(source="hub", args={"path": "who/tales", "name": "tales"}, max_tokens=limit)
        manifest = prepare(spec, folder=Path(), split=split).manifest
        return manifest.model_dump(include={"documents", "tokens", "identity"})
    except LMPlayError as error:
        return str(error)

for line in sys.stdin:
    print(json.dumps(read(*json.loads(line))), flush=True)
"""


def test_a_gated_dataset_is_read_with_the_token_up_to_its_budget_and_no_further() -> None:
    with fake_hub() as hub:
        at_home = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        reader = subprocess.Popen(
            [sys.executable, "-c", READ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **at_home},
            text=True,
        )
        assert reader.stdin is not None
        assert reader.stdout is not None

        def read(*arguments: Any) -> Any:
            reader.stdin.write(json.dumps(arguments) + "\n")
            reader.stdin.flush()
            return json.loads(reader.stdout.readline())

        with reader:
            assert "the dataset 'who/tales' is gated: ask for access on its page, then log in" in read(20_000)
            assert 20_000 <= read(20_000, TOKEN)["tokens"] < 20_100
            assert not [path for path, _ in hub.asked if "train-00001" in path]  # the first shard was enough
            everything = read(None, TOKEN)
            assert everything["documents"] == 9600
            assert everything["identity"]["source"]["revision"] == COMMIT
            assert read(None, TOKEN, "validation")["documents"] == 40
            asked = len(hub.asked)
            assert read(None) == everything  # prepared once, it needs neither the hub nor the token
            assert len(hub.asked) == asked
            reader.stdin.close()
