"""Token stores: made once, the same bytes however often the making was killed, and never stale or damaged unnoticed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmplay.data.shards import build, prepare
from lmplay.data.shards.build import Builder
from lmplay.data.shards.health import damaged_shards
from lmplay.data.shards.prepare import locate
from lmplay.data.shards.store import TokenStore, partial_path, stores_folder
from lmplay.plans import DatasetSpec
from lmplay.utils import get_tokenizer
from lmplay.utils.errors import LMPlayError

WORDS = ["the", "quick", "brown", "fox", "jumps", "över", "a", "lazy", "dog,", "日本", "1234", "\n"]


def make_texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 120))) for _ in range(count)]


def write_jsonl(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def spec_of(name: str = "a.jsonl", **more: Any) -> DatasetSpec:
    return DatasetSpec(source="json", args={"data_files": name}, **more)


def make(folder: Path, spec: DatasetSpec | None = None) -> TokenStore:
    return prepare.prepare(spec or spec_of(), folder=folder)


def content(folder: Path) -> dict[str, str]:
    """Name -> sum of every file of a store."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LMPLAY_CACHE", str(folder))
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SHARD_TOKENS", 20_000)
    monkeypatch.setattr(prepare, "SHARD_TOKENS", 20_000)


def test_a_store_holds_what_the_tokenizer_says(tmp_path: Path) -> None:
    texts = [*make_texts(300), "", "<|endoftext|> is seven tokens", "half \ud83d a pair"]
    write_jsonl(tmp_path / "a.jsonl", texts)
    store = make(tmp_path)
    tokenizer = get_tokenizer()
    expected = [[*tokenizer.encode_ordinary(text), tokenizer.eot_token] for text in texts if text]
    assert store.tokens(0, store.num_tokens).tolist() == [token for tokens in expected for token in tokens]
    assert np.diff(store.document_starts(0, store.num_documents)).tolist() == [len(tokens) for tokens in expected]
    assert store.manifest.empty == 1
    assert store.manifest.learned == store.num_tokens
    assert np.load(store.folder / "00000.tokens.npy").dtype == np.uint16


@pytest.mark.usefixtures("small_shards")
def test_reads_cross_the_borders_of_shards(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_texts(6000))
    store = make(tmp_path)
    assert len(store.manifest.shards) > 3
    files = [np.load(store.folder / f"{n:05d}.tokens.npy") for n in range(len(store.manifest.shards))]
    everything = np.concatenate(files)
    border = files[0].size
    for start, stop in (
        (0, store.num_tokens),
        (border - 5, border + 5),
        (border, border + 1),
        (border - 1, border),
        (7, 7),
    ):
        assert store.tokens(start, stop).tolist() == everything[start:stop].tolist()
    starts = store.document_starts(0, store.num_documents)
    assert all(store.document_start(n) == starts[n] for n in range(0, store.num_documents + 1, 7))
    assert store.document_starts(1500, 4800).tolist() == starts[1500:4801].tolist()


def test_large_vocabularies_take_four_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    # The real one's files would be downloaded: a vocabulary of bytes and one high control token stands for it.
    large = tiktoken.Encoding(
        "large",
        pat_str=r".|\n",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={"<|endoftext|>": 100_257},
    )
    for module in ("lmplay.data.shards.build", "lmplay.data.text.tokens"):
        monkeypatch.setattr(f"{module}.get_tokenizer", lambda _: large)
    monkeypatch.setattr(prepare, "check_tokenizer", lambda _: None)
    write_jsonl(tmp_path / "a.jsonl", ["ab", "c"])
    store = make(tmp_path, spec_of(tokenizer="large"))
    assert store.tokens(0, store.num_tokens).tolist() == [97, 98, 100_257, 99, 100_257]
    assert np.load(store.folder / "00000.tokens.npy").dtype == np.uint32


def test_reading_stops_at_the_document_that_reaches_the_limit(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_texts(4000))
    whole = make(tmp_path)
    store = make(tmp_path, spec_of(max_tokens=30_000))
    starts = whole.document_starts(0, whole.num_documents)
    assert store.num_tokens == starts[np.searchsorted(starts, 30_000)]
    assert store.tokens(0, store.num_tokens).tolist() == whole.tokens(0, store.num_tokens).tolist()
    assert store.key != whole.key


def test_a_second_call_reads_nothing_but_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_texts(50))
    first = make(tmp_path)
    monkeypatch.setattr(Builder, "build", lambda *_: pytest.fail("built again"))
    monkeypatch.setattr(Builder, "mend", lambda *_: pytest.fail("mended"))
    assert make(tmp_path).folder == first.folder


def test_whatever_matters_changes_the_key(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_texts(5))
    keys = [locate(spec_of(), folder=tmp_path).key]
    keys.append(locate(spec_of(max_tokens=10), folder=tmp_path).key)
    keys.append(locate(spec_of(tokenizer="r50k_base"), folder=tmp_path).key)
    for fields in ({"text": "other"}, {"prompt": "p", "truth": "t"}, {"prompt": "t", "truth": "p"}, {"messages": "m"}):
        keys.append(locate(spec_of(fields=fields), folder=tmp_path).key)
    pair = {"prompt": "p", "truth": "t"}
    keys.append(locate(spec_of(fields=pair, template="Q {prompt} A {truth}"), folder=tmp_path).key)
    keys.append(
        locate(
            spec_of().model_copy(update={"args": {"data_files": "a.jsonl", "encoding": "latin-1"}}), folder=tmp_path
        ).key
    )
    write_jsonl(tmp_path / "a.jsonl", make_texts(5, seed=1))
    keys.append(locate(spec_of(), folder=tmp_path).key)
    assert len(set(keys)) == len(keys)


KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
from lmplay.data.shards import build, prepare
from lmplay.data.sources import source
from lmplay.plans import DatasetSpec
from lmplay.utils import get_tokenizer

source._BATCH_ROWS = 64
build.SHARD_TOKENS = prepare.SHARD_TOKENS = 5_000
get_tokenizer()
folder = Path(sys.argv[1])
spec = DatasetSpec(source="json", args={"data_files": "a.jsonl.gz"}, max_tokens=700_000)

def start():
    child = os.fork()
    if child == 0:
        try:
            prepare.prepare(spec, folder=folder)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child

os.environ["LMPLAY_CACHE"] = str(folder / "undisturbed")
assert os.waitpid(start(), 0)[1] == 0
write = build._write
build._write = lambda *args: (time.sleep(0.02), write(*args))[1]  # or the twentieth kill would come too late
os.environ["LMPLAY_CACHE"] = str(folder / "killed")
place = prepare.locate(spec, folder=folder).folder
moments = random.Random(7)
kills = []
for _ in range(20):
    child = start()
    time.sleep(moments.random() * 0.4)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    partial = place.with_name(place.name + ".partial")
    kills.append(len(list(partial.glob("*.tokens.npy"))) if partial.exists() else -1 if not place.exists() else 999)
assert os.waitpid(start(), 0)[1] == 0
print(json.dumps({"kills": kills, "name": place.name}))
"""


@pytest.mark.slow
def test_twenty_kills_leave_the_same_bytes(tmp_path: Path) -> None:
    import gzip

    texts = make_texts(12_000)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", compresslevel=1, encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(set(answer["kills"])) > 5  # the kills met the making at different points
    undisturbed, killed = (tmp_path / way / "tokens" / answer["name"] for way in ("undisturbed", "killed"))
    assert content(killed) == content(undisturbed)
    assert len(content(killed)) > 30
    assert not partial_path(killed).exists()


def test_two_processes_prepare_one_store(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_texts(8000))
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from lmplay.data.shards import build
        from lmplay.data.shards.prepare import prepare
        from lmplay.plans import DatasetSpec
        made = build.Builder.build
        build.Builder.build = lambda *a: (print("built", flush=True), made(*a))[1]
        spec = DatasetSpec(source="json", args={"data_files": "a.jsonl"})
        print(prepare(spec, folder=Path(sys.argv[1])).num_tokens)
    """)
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sum(output.count("built") for output in outputs) == 1
    assert outputs[0][-1] == outputs[1][-1]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
def test_a_damaged_shard_is_noticed_and_made_again(tmp_path: Path, damage: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_texts(6000))
    store = make(tmp_path)
    before = content(store.folder)
    victim = store.folder / "00001.tokens.npy"
    if damage == "changed":
        with victim.open("r+b") as file:
            file.seek(1000)
            file.write(b"\x00\x01\x02")
    elif damage == "cut":
        os.truncate(victim, 500)
    else:
        victim.unlink()
    assert damaged_shards(store.folder, store.manifest) == [1]
    assert content(make(tmp_path).folder) == before
    assert damaged_shards(store.folder, store.manifest, thorough=True) == []


def test_damage_behind_the_clock_is_found_by_a_thorough_look(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_texts(50))
    store = make(tmp_path)
    victim = store.folder / "00000.tokens.npy"
    status = victim.stat()
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert damaged_shards(store.folder, store.manifest) == []
    assert damaged_shards(store.folder, store.manifest, thorough=True) == [0]


@pytest.mark.usefixtures("small_shards")
def test_a_broken_row_leaves_what_was_done_and_a_mended_file_starts_anew(tmp_path: Path) -> None:
    texts = make_texts(6000)
    write_jsonl(tmp_path / "a.jsonl", texts)
    whole = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "a.jsonl").write_bytes(whole[:-20])
    with pytest.raises(LMPlayError, match="row 6000 is not JSON"):
        make(tmp_path)
    assert not [path for path in stores_folder().iterdir() if (path / "manifest.json").exists()]
    (tmp_path / "a.jsonl").write_bytes(whole)
    assert make(tmp_path).num_documents == 6000


@pytest.mark.usefixtures("small_shards")
def test_a_full_disk_is_one_line_and_the_work_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_texts(6000))
    monkeypatch.setenv("LMPLAY_CACHE", str(tmp_path / "undisturbed"))
    expected = content(make(tmp_path).folder)
    monkeypatch.setenv("LMPLAY_CACHE", str(tmp_path / "full"))
    written = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(build.os, "fsync", fsync)
    with pytest.raises(LMPlayError, match=r"no room for tokens in .*: No space left on device; free some") as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(build.os, "fsync", real)
    assert content(make(tmp_path).folder) == expected


@pytest.mark.usefixtures("small_shards")
def test_a_limit_of_the_system_on_file_sizes_is_one_line(tmp_path: Path) -> None:
    import resource

    write_jsonl(tmp_path / "a.jsonl", make_texts(2000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # writing fails for real
    try:
        with pytest.raises(LMPlayError, match=r"no room for tokens in .*: File too large"):
            make(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    store = make(tmp_path)
    assert damaged_shards(store.folder, store.manifest, thorough=True) == []


def test_a_source_without_text_is_an_error(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["", ""])
    with pytest.raises(LMPlayError, match=r"a\.jsonl has no text to learn"):
        make(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["a"])
    with pytest.raises(LMPlayError, match=r"row 1: there is no column 'txet'; did you mean text"):
        make(tmp_path, spec_of(fields={"text": "txet"}))


MEMORY = """
import resource, sys
from pathlib import Path
import psutil
from lmplay.data.shards.prepare import prepare
from lmplay.plans import DatasetSpec
from lmplay.utils import get_tokenizer

get_tokenizer()
prepare(DatasetSpec(source="json", args={"data_files": "small.jsonl"}), folder=Path(sys.argv[1]))  # imports are made
allowed = psutil.Process().memory_info().data + (72 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
print(prepare(DatasetSpec(source="json", args={"data_files": "large.jsonl"}), folder=Path(sys.argv[1])).num_tokens)
"""


@pytest.mark.slow
def test_a_file_larger_than_the_memory_allowance_is_prepared(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "small.jsonl", ["a"])
    line = json.dumps({"text": "internationalization " * 5_000}) + "\n"
    with (tmp_path / "large.jsonl").open("w", encoding="ascii") as file:
        for _ in range(900):
            file.write(line)
    assert (tmp_path / "large.jsonl").stat().st_size > 90 << 20
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # threads would reserve memory that they do not use
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 9_000_000
