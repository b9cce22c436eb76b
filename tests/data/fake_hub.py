"""A hub on this machine with one gated dataset, read on the path of the real one: names, revisions, the token."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

import pyarrow
import pyarrow.parquet

COMMIT = "1" * 40
TOKEN = "hf_of_a_friend"
NAME = "who/tales"
CARD = b"""---
configs:
- config_name: tales
  data_files:
  - split: train
    path: tales/train-*
  - split: validation
    path: tales/validation-*
---
"""


def shard(first: int, count: int) -> bytes:
    file = io.BytesIO()
    rows = {"text": [f"Story {n} of the hub. " * 8 for n in range(first, first + count)], "id": list(range(count))}
    pyarrow.parquet.write_table(pyarrow.table(rows), file)
    return file.getvalue()


FILES = {
    "README.md": CARD,
    "tales/train-00000-of-00002.parquet": shard(0, 9000),
    "tales/train-00001-of-00002.parquet": shard(9000, 600),
    "tales/validation-00000-of-00001.parquet": shard(9900, 40),
}


class FakeHub(ThreadingHTTPServer):
    """Keeps what it was asked for: `(path, token)`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Answer(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        self.server.asked.append((path, token))
        about, files = f"/api/datasets/{NAME}", f"/datasets/{NAME}/resolve/{COMMIT}/"
        if path in (about, f"{about}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in FILES]
            self._say({"id": NAME, "sha": COMMIT, "gated": "auto", "private": False, "siblings": siblings, "tags": []})
        elif path.startswith(f"{about}/tree/{COMMIT}"):
            self._say(self._listing(path.removeprefix(f"{about}/tree/{COMMIT}").strip("/")))
        elif path.startswith(files) and token != TOKEN:
            self._say({"error": "restricted"}, 401, **{"X-Error-Code": "GatedRepo"})
        elif path.startswith(files) and (content := FILES.get(path.removeprefix(files))) is not None:
            self._send_file(content)
        else:
            missing = "EntryNotFound" if path.startswith(files) else "RepoNotFound"
            self._say({"error": missing}, 404, **{"X-Error-Code": missing})

    do_HEAD = do_GET

    def _listing(self, folder: str) -> list[dict[str, object]]:
        inside = [name for name in FILES if name.startswith(f"{folder}/" if folder else "")]
        recursive = parse_qs(urlparse(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        depth = folder.count("/") + 1 if folder else 0
        below = {"/".join(name.split("/")[: depth + 1]) for name in inside if name.count("/") > depth}
        found: list[dict[str, object]] = [{"type": "directory", "path": name, "oid": "0", "size": 0} for name in below]
        return found + [
            {"type": "file", "path": name, "oid": _sum(FILES[name]), "size": len(FILES[name])}
            for name in inside
            if recursive or name.count("/") == depth
        ]

    def _send_file(self, content: bytes) -> None:
        marks = {"ETag": f'"{_sum(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("range")
        if asked is None:
            self._send(content, 200, **marks)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last) + 1 if last else len(content), len(content))
        self._send(content[start:stop], 206, **{**marks, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"})

    def _say(self, answer: object, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(answer).encode(), status, **{"Content-Type": "application/json", **headers})

    def _send(self, content: bytes, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: tests look at `asked`."""


def _sum(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
