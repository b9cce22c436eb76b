"""Sources: every format and compression gives its rows, reading goes on from any cursor, broken input is one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lmplay.data.sources import compression, open_source
from lmplay.data.sources.source import Source
from lmplay.plans import WIKITEXT_TITLE, DatasetSpec
from lmplay.utils.errors import LMPlayError

ROWS = [{"text": f'Row {number}: ä, 日本, "quoted",\nand a second line.', "other": number} for number in range(3000)]


def source_of(kind: str, folder: Path, *, columns: tuple[str, ...] = ("text",), **args: Any) -> Source:
    return open_source(DatasetSpec(source=kind, args=args), columns=columns, split=None, folder=folder)


def texts(source: Source, cursor: Any = None) -> list[str]:
    return [row.values["text"] for batch in source.batches(cursor) for row in batch.rows]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def write_csv(path: Path) -> None:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "other"])
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=700)


def write_zst(path: Path) -> None:
    with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
        file.write(jsonl(ROWS))


WRITERS: dict[str, Callable[[Path], object]] = {
    "rows.jsonl": lambda path: path.write_bytes(jsonl(ROWS)),
    "bom.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + jsonl(ROWS)),
    "gaps.jsonl": lambda path: path.write_bytes(b"\n" + jsonl(ROWS).replace(b"}\n", b"}\r\n\n")),
    "array.json": lambda path: path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8"),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(ROWS))),
    "two.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(ROWS[:10])) + gzip.compress(jsonl(ROWS[10:]))),
    "rows.jsonl.bz2": lambda path: path.write_bytes(bz2.compress(jsonl(ROWS))),
    "rows.jsonl.xz": lambda path: path.write_bytes(lzma.compress(jsonl(ROWS))),
    "rows.jsonl.zst": write_zst,
    "array.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "rows.csv": write_csv,
    "rows.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_its_rows_and_goes_on_from_any_cursor(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    kind = name.split(".")[1].replace("jsonl", "json")
    source = source_of(kind, tmp_path, data_files=name)
    expected = [row["text"] for row in ROWS]
    batches = list(source.batches(None))
    assert [row.values["text"] for batch in batches for row in batch.rows] == expected
    assert len(batches) > 2
    done = 0
    for batch in batches:
        done += len(batch.rows)
        cursor = json.loads(json.dumps(batch.cursor))  # cursors are kept in JSON files
        assert texts(source_of(kind, tmp_path, data_files=name), cursor) == expected[done:]


def test_files_come_in_the_order_of_their_names_and_cursors_cross_them(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        (tmp_path / f"part-{number}.jsonl").write_bytes(jsonl(ROWS[number * 1000 : (number + 1) * 1000]))
    expected = [row["text"] for row in ROWS]
    for args in (
        {"data_files": "part-*.jsonl"},
        {"data_dir": "."},
        {"data_files": [f"part-{n}.jsonl" for n in range(3)]},
    ):
        source = source_of("json", tmp_path, **args)
        assert texts(source) == expected
        second = list(source.batches(None))[1]
        assert texts(source_of("json", tmp_path, **args), second.cursor) == expected[len(expected) - 952 :]


def test_a_split_picks_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS[:5]))
    (tmp_path / "b.jsonl").write_bytes(jsonl(ROWS[5:8]))
    spec = DatasetSpec(source="json", args={"data_files": {"train": "a.jsonl", "validation": "b.jsonl"}})
    assert len(texts(open_source(spec, columns=["text"], split=None, folder=tmp_path))) == 5
    assert len(texts(open_source(spec, columns=["text"], split="validation", folder=tmp_path))) == 3
    with pytest.raises(LMPlayError, match="no split 'vlidation'; did you mean validation"):
        open_source(spec, columns=["text"], split="vlidation", folder=tmp_path)


def test_a_text_file_is_a_document_and_a_large_one_is_cut_at_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Title\r\n\r\nWords.\n", encoding="utf-8")
    text = "".join(f"Paragraph {number} " + "word " * 60 + "\n\n" for number in range(3000))
    (tmp_path / "b.txt").write_text(text, encoding="utf-8")
    found = texts(source_of("text", tmp_path, data_dir="."))
    assert found[0] == "# Title\n\nWords.\n"
    assert "".join(found[1:]) == text
    assert len(found) > 3
    assert all(piece.endswith("\n\n") and len(piece) <= 1 << 18 for piece in found[1:])
    alone = texts(source_of("text", tmp_path, data_files="b.txt"))
    assert "".join(alone) == text
    assert len(alone) >= 60


@pytest.mark.parametrize(
    ("sample_by", "expected"),
    [("line", ["a", "b", "", "c"]), ("paragraph", ["a\nb", "c"]), ("document", ["a\nb\n\nc\n"])],
)
def test_text_can_be_sampled_by_line_or_paragraph(tmp_path: Path, sample_by: str, expected: list[str]) -> None:
    (tmp_path / "a.txt").write_text("a\nb\n\nc\n", encoding="utf-8")
    assert texts(source_of("text", tmp_path, data_files="a.txt", sample_by=sample_by)) == expected


def test_a_field_names_the_list_inside_an_object(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"version": 1, "data": ROWS[:4]}), encoding="utf-8")
    assert len(texts(source_of("json", tmp_path, data_files="a.json", field="data"))) == 4


def broken(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def endless_line(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b'{"text": "')
        for _ in range(80):
            file.write(bytes(1 << 20))


def many_lines(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=9) as file:
        line = b'{"text": "' + b"a" * 1000 + b'"}\n'
        for _ in range(12):
            file.write(line * 1000)


def not_parquet_inside(path: Path) -> None:
    write_parquet(path)
    content = bytearray(path.read_bytes())
    content[100:4000] = bytes(3900)
    path.write_bytes(content)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a.jsonl": (broken(b'{"text": "fine"}\n{"text": "\xff\xfe"}\n'), "row 2 is not UTF-8"),
    "b.jsonl": (broken(b""), "is empty"),
    "c.jsonl": (broken(b'{"text": "fine"}\n{"text": \n'), "row 2 is not JSON"),
    "d.jsonl": (broken(b'{"text": "fine"}\n["list"]\n'), "row 2 is list, and an object is needed"),
    "e.jsonl": (
        lambda path: path.write_bytes(b'{"text": "' + b"a" * (50 << 20) + b'"}\n'),
        "row 1 has more than the 32",
    ),
    "f.jsonl.gz": (endless_line, "row 1 has more than the 32 MB"),
    "g.jsonl.gz": (many_lines, "decompression bomb"),
    "h.jsonl.gz": (broken(gzip.compress(jsonl(ROWS))[:-20]), "damaged"),
    "i.jsonl.gz": (broken(b"no gzip"), "can't be (read|decompressed)"),
    "j.jsonl.xz": (broken(lzma.compress(jsonl(ROWS))[:-20]), "damaged"),
    "k.json": (broken(b'[{"text": "a"} {"text": "b"}]'), "row 2: a list of objects is broken here"),
    "l.json": (broken(b'[{"text": "a"}, {"text": '), "row 2 is not JSON"),
    "m.json": (broken(b"[" * 100_000), "row 1 is"),
    "n.csv": (broken(b'text,b\n"open,1\n'), "row 1 .* is not CSV"),
    "o.csv": (broken(b"text,b\n1,2\n1,2,3\n"), "row 2 .* has 3 cells, and there are 2 columns"),
    "p.csv": (broken("text\nä\n".encode("latin-1")), "not UTF-8"),
    "q.csv": (broken(b""), "is empty"),
    "r.parquet": (broken(b"PAR1 no"), "no readable Parquet"),
    "s.parquet": (not_parquet_inside, "Parquet file|can't be read"),
    "t.parquet": (
        lambda path: pyarrow.parquet.write_table(pyarrow.table({"txt": ["a"]}), path),
        "there is no column 'text'; did you mean txt",
    ),
    "u.txt": (broken("ä".encode("latin-1") * 100), "not UTF-8 text .*; convert it, or give its encoding"),
    "v.txt": (broken(b""), "is empty"),
    "w.jsonl.zst": (broken(b"no zstd"), "can't be (read|decompressed)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_line_that_names_the_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "g.jsonl.gz":
        monkeypatch.setattr(compression, "_HARMLESS_BYTES", 4 << 20)
    write, message = BROKEN[name]
    write(tmp_path / name)
    kind = {"jsonl": "json", "txt": "text"}.get(name.split(".")[1], name.split(".")[1])
    with pytest.raises(LMPlayError, match=message) as caught:
        texts(source_of(kind, tmp_path, data_files=name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"data_files": "rowz.jsonl"}, "there is no file .*; did you mean rows.jsonl"),
        ({"data_files": "*.nothing"}, "there is no file"),
        ({"data_dir": "empty"}, "holds no json files"),
        ({"data_dir": "nowhere"}, "there is no folder"),
        ({"data_files": "https://example.org/a.jsonl"}, "is no local file"),
        ({"data_files": {"train": "rows.jsonl"}, "split": "test"}, "no split 'test'; there are train"),
        ({"data_files": "rows.jsonl", "encoding": "utf-nine"}, "no text encoding 'utf-nine'"),
    ],
)
def test_files_that_are_not_there(tmp_path: Path, args: dict[str, Any], message: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(jsonl(ROWS[:2]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(LMPlayError, match=message):
        texts(source_of("json", tmp_path, **args))


def test_identity_changes_with_a_byte_of_a_file_and_not_with_its_place(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_bytes(jsonl(ROWS[:2]))
    here, there = (source_of("json", tmp_path / folder, data_files="a.jsonl").identity() for folder in ("one", "two"))
    assert here == there
    (tmp_path / "two" / "a.jsonl").write_bytes(jsonl(ROWS[:2]).replace(b"Row 1", b"Row 7"))
    assert source_of("json", tmp_path / "two", data_files="a.jsonl").identity() != here


def test_a_callable_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_texts.py").write_text(
        "def texts(count):\n    return (f'text {n}' for n in range(count))\n"
        "def rows():\n    yield {'text': 'fine'}\n    yield 7\n"
        "def fails():\n    yield 'a'\n    raise OSError('gone')\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = source_of("python", tmp_path, entry_point="my_texts:texts", kwargs={"count": 2500})
    assert texts(source) == [f"text {n}" for n in range(2500)]
    cursor = next(iter(source.batches(None))).cursor
    assert texts(source, cursor)[0] == "text 1024"
    for name, message in (
        ("my_texts:rows", "row 2: a row is a text or a dictionary, not int"),
        ("my_texts:fails", "failed after row 1: OSError: gone"),
        ("my_texts:nothing", "can't be imported"),
        ("my_texts:number", "is int, and a callable is needed"),
        ("no_such_module:x", "can't be imported"),
        ("unregistered", "no installed package registers"),
    ):
        with pytest.raises(LMPlayError, match=message):
            texts(source_of("python", tmp_path, entry_point=name))
    del sys.modules["my_texts"]


def test_a_callable_can_be_registered_by_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package.py").write_text("def poems():\n    return ['a rose']\n")
    about = tmp_path / "their_package-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[lmplay.datasets]\npoems = their_package:poems\n")
    monkeypatch.syspath_prepend(tmp_path)
    source = source_of("python", tmp_path, entry_point="poems")
    assert texts(source) == ["a rose"]
    assert source.identity()["version"] == "their-package 1.2"
    del sys.modules["their_package"]


def test_zip_archives_are_not_mistaken_for_text(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.txt", "w") as archive:
        archive.writestr("b", bytes(range(256)) * 10)
    with pytest.raises(LMPlayError, match="not UTF-8"):
        texts(source_of("text", tmp_path, data_files="a.txt"))


def test_rows_that_are_lines_are_joined_into_documents_across_any_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lmplay.data.sources.source as source_module

    monkeypatch.setattr(source_module, "_BATCH_ROWS", 7)
    articles = [
        f" = Title {n} = \n" + "".join(["\n", " Words .\n", " = = Section = = \n"] * (n % 9)) for n in range(40)
    ]
    lines = [line if line != "\n" else "" for article in articles for line in article.splitlines(keepends=True)]
    (tmp_path / "a.jsonl").write_bytes(jsonl([{"text": line} for line in lines]))
    spec = DatasetSpec(source="json", args={"data_files": "a.jsonl"}, document_start=WIKITEXT_TITLE)

    def read() -> Source:
        return open_source(spec, columns=["text"], split=None, folder=tmp_path)

    assert texts(read()) == articles
    done = 0
    for batch in read().batches(None):
        done += len(batch.rows)
        assert texts(read(), json.loads(json.dumps(batch.cursor))) == articles[done:]
