"""The engine as a process: JSON lines in on standard input, JSON lines out on standard output.

`python -m lmplay.generate.server [CHECKPOINT]` is started by `lmplay chat`, the TUI and scripts; docs/generation.md
describes the lines. A request that fails is answered with an error and the next one is served; should the process die,
its caller sees the end of a pipe. It ends when its input does, so that a killed caller leaves nothing behind.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import queue
import sys
import threading
from collections.abc import Sequence
from typing import Any, Literal, TextIO

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmplay.base.base_model import LMBase
from lmplay.generate.answers import generation_as_dict
from lmplay.generate.config import SamplingConfig
from lmplay.generate.loading import Loaded, load
from lmplay.generate.session import Session
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json

Id = int | str | None


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id = Field(default=None, description="Comes back in every event of this request.")


class LoadRequest(_Request):
    """Take another checkpoint, or the newest of the same run; also what the command line's CHECKPOINT does."""

    op: Literal["load"]
    checkpoint: str = Field(description="As for `lmplay generate`.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:0.")
    weights: str = Field(default="auto", description="auto, float32, bfloat16 or int8.")
    compile: bool = Field(default=False, description="Compile the decoding step; on a GPU, as a CUDA graph.")


class GenerateRequest(_Request):
    """Continue a text. What it shares with the start of the last text is not computed again."""

    op: Literal["generate"]
    context: tuple[int, ...] = Field(default=(), description="Tokens before the prompt: the turns so far.")
    prompt: str | tuple[str, ...] = Field(
        default="", description="Text that is encoded and appended to the context; parts of a list are encoded apart."
    )
    settings: SamplingConfig = Field(default=SamplingConfig(), description="How to sample and when to stop.")
    probabilities: int | None = Field(default=None, ge=0, le=100, description="Ask for them, and so many alternatives.")


class Server:
    """Answers requests one after another in the calling thread; another one reads, so that a cancel acts at once."""

    def __init__(self, requests: TextIO, answers: TextIO) -> None:
        self._requests = requests
        self._answers = answers
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._asked: set[Id] = set()
        self._cancelled: set[Id] = set()
        self._current: Id = None
        self._busy = False
        self._closed = threading.Event()
        self._session: Session | None = None
        self._loaded: Loaded | None = None

    def serve(self) -> None:
        """Until the input ends or `quit` comes."""
        threading.Thread(target=self._read, daemon=True).start()
        while (request := self._queue.get()) is not None and not self._closed.is_set():
            self._answer(request)

    def load(self, request: LoadRequest) -> None:
        loaded = load(request.checkpoint, device=request.device, weights=request.weights)
        session = Session(loaded.model, compiled="inductor" if request.compile else None, recorded=True)
        session.warm_up()
        self._loaded, self._session = loaded, session
        self._ready(request.id)

    def generate(self, request: GenerateRequest) -> None:
        if self._session is None:
            raise WrongUsageError('no model is loaded yet; send {"op": "load", "checkpoint": "..."} first')
        model = self._session.model
        parts = (request.prompt,) if isinstance(request.prompt, str) else request.prompt
        new = [token for part in parts for token in model.tokenizer.encode_ordinary(part)]
        whole = _known(model, [*request.context, *new]) or [model.tokenizer.eot_token]
        result = self._session.generate(
            whole,
            request.settings,
            probabilities=request.probabilities,
            on_text=lambda text: self._send(request.id, "text", text=text),
            cancelled=lambda: request.id in self._cancelled or self._closed.is_set(),
        )
        self._send(
            request.id,
            "done",
            **generation_as_dict("".join(parts), result),
            prompt_tokens=whole[len(request.context) :],
            reused_tokens=result.reused_tokens,
            slides=result.slides,
            cache_bytes=self._session.cache_bytes,
            held_tokens=self._session.held_tokens,
        )

    def _ready(self, request_id: Id) -> None:
        if self._loaded is None or self._session is None:
            raise WrongUsageError('no model is loaded yet; send {"op": "load", "checkpoint": "..."} first')
        facts = self._loaded.facts() | {"cache_bytes": self._session.cache_bytes}
        reasons = {"not_compiled": self._session.not_compiled, "not_recorded": self._session.not_recorded}
        self._send(request_id, "ready", **facts, **reasons)

    def _read(self) -> None:
        for line in self._requests:
            if not line.strip():
                continue
            try:
                request = json.loads(line)
            except (ValueError, RecursionError) as error:
                self._send(None, "error", message=f"this line is no JSON: {error}")
                continue
            if not isinstance(request, dict):
                self._send(None, "error", message="a request is a JSON object")
            elif not isinstance(request.get("id"), int | str | None):
                self._send(None, "error", message="id: a whole number or a string is wanted")
            elif request.get("op") == "cancel":
                if "id" in request:
                    # Only what waits or runs: a cancel that comes too late must not meet the id's next use.
                    self._cancelled |= self._asked & {request["id"]}
                elif self._busy:
                    self._cancelled.add(self._current)
            elif request.get("op") == "quit":
                self._closed.set()
                break
            else:
                self._asked.add(request.get("id"))
                self._queue.put(request)
        # At the mere end of input what was asked is still answered, so that a file of requests can be piped in.
        self._queue.put(None)

    def _answer(self, given: dict[str, Any]) -> None:
        self._current, self._busy = given.get("id"), True
        try:
            match given.get("op"):
                case "load":
                    self.load(LoadRequest(**given))
                case "generate":
                    self.generate(GenerateRequest(**given))
                case "info":
                    self._ready(given.get("id"))
                case other:
                    raise WrongUsageError(f"{other!r} is no op; use load, generate, info, cancel or quit")
        except LMPlayError as error:
            self._send(given.get("id"), "error", message=str(error))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            what = "no such field" if first["type"] == "extra_forbidden" else first["msg"]
            self._send(given.get("id"), "error", message=f"{place}: {what}")
        except Exception as error:  # noqa: BLE001 - a model's code may raise anything, and the next request is to be served
            if self._session is not None:
                self._session.reset()
            self._send(given.get("id"), "error", message=f"{type(error).__name__}: {error}")
        finally:
            self._busy = False
            self._asked.discard(self._current)
            self._cancelled.discard(self._current)

    def _send(self, request_id: Id, event: str, **fields: Any) -> None:
        line = to_json({"id": request_id, "event": event, **fields}) + "\n"
        try:
            self._answers.write(line)
            self._answers.flush()
        except (BrokenPipeError, ValueError):
            # The caller is gone: there is nobody to serve, and nothing to lose.
            os._exit(0)


def _known(model: LMBase, tokens: list[int]) -> list[int]:
    unknown = [token for token in tokens if not 0 <= token < model.tokenizer.n_vocab]
    if unknown:
        raise WrongUsageError(f"{unknown[0]} is no token of this model, which has {model.tokenizer.n_vocab}")
    return tokens


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lmplay.generate.server", description=__doc__)
    parser.add_argument("checkpoint", nargs="?", help="a run or a checkpoint's folder; else wait for a load request")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args(arguments)

    assert isinstance(sys.stdin, io.TextIOWrapper)
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    # A model's code may print, and what it prints must not stand between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", newline="\n")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    server = Server(sys.stdin, answers)
    with torch.inference_mode():
        if options.checkpoint is not None:
            try:
                server.load(LoadRequest(op="load", **vars(options)))
            except LMPlayError as error:
                answers.write(to_json({"id": None, "event": "error", "message": str(error)}) + "\n")
                answers.flush()
                raise SystemExit(error.exit_status) from error
        server.serve()


if __name__ == "__main__":
    main()
