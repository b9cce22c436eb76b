"""What the tests of the workbench stand on: planted runs, commands that answer at once, and the screen as text."""

from __future__ import annotations

import asyncio
import difflib
import json
import math
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from textual._context import visible_screen_stack
from textual.pilot import Pilot

from lmplay.runs import create_run
from lmplay.utils.files import to_json
from lmplay_tui.app import Workbench
from lmplay_tui.options import Options
from lmplay_tui.services.commands import CommandError, Commands
from lmplay_tui.services.experiments import ExperimentIndex
from lmplay_tui.state import State

SNAPSHOTS = Path(__file__).parent / "snapshots"
REPO = Path(__file__).resolve().parents[2]
START = 1_750_000_000.0
"""When planted runs began, so that the times in snapshots stay the same."""


def plant_run(
    root: Path,
    name: str,
    *,
    steps: int = 200,
    state: str = "done",
    seed: int = 0,
    loss: Callable[[int], float] = lambda step: 3.0 + 7.5 * math.exp(-step / 40),
    stages: tuple[str, ...] = ("learn",),
    total: int | None = None,
    experiment: str = "gpt2ish",
    lr: float = 1e-3,
    order: int = 0,
    **status: Any,
) -> Path:
    """A run as its worker leaves it behind: every figure planted, nothing random."""
    config = {"model": {"num_blocks": 2}, "stages": [{"name": stage, "train": {"lr": lr}} for stage in stages]}
    datasets = {"docs": {"source": "builtin", "args": {"name": "pydocs"}}}
    plan = {"name": "quickstart", "content": {"datasets": datasets, "stages": [{"name": stage} for stage in stages]}}
    path = create_run(
        experiment,
        name=name,
        root=root,
        config=config,
        plan=plan,
        seed=seed,
        request={"experiment": experiment, "plan": "quickstart", "seed": seed, "train": {"lr": lr}},
        cost={"parameters": 6_598_528, "training_flops_per_token": 21_461_376},
    )
    os.utime(path / "run.json", (START + order, START + order))
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        stage = stages[min(len(stages) - 1, (step - 1) * len(stages) // max(1, steps))]
        place = {
            "step": step,
            "samples": step * 8,
            "tokens": step * 1024,
            "time": step * 0.5,
            "clock": START + step * 0.5,
        }
        rows.append(
            {
                "kind": "train",
                "stage": stage,
                **place,
                "loss": loss(step),
                "lr": lr * min(1.0, step / 20),
                "grad_norm": 1.0 + math.sin(step / 9) / 4,
                "tokens_per_second": 2000.0 + step % 7,
            }
        )
        if step % 50 == 0:
            value = loss(step) + 0.1
            rows.append(
                {
                    "kind": "validate",
                    "stage": stage,
                    **place,
                    "loss": value,
                    "perplexity": math.exp(min(value, 50)) if value == value else value,
                    "bits_per_byte": value / 2,
                    "accuracy": 0.3,
                }
            )
    (path / "metrics.jsonl").write_text("".join(to_json(row) + "\n" for row in rows))
    events = [{"event": "started", "clock": START, "device": "cpu", "parameters": 6_598_528}]
    for step in range(50, steps + 1, 50):
        sample = f"The sample of step {step} goes on for a while."
        events.append(
            {"event": "validated", "clock": START + step / 2, "step": step, "loss": loss(step) + 0.1, "sample": sample}
        )
        events.append({"event": "saved", "clock": START + step / 2, "step": step, "checkpoint": str(step)})
    (path / "events.jsonl").write_text("".join(to_json(row) + "\n" for row in events))
    system = [
        {
            "clock": START + second,
            "process_memory": 470e6,
            "process_cpu": 99.0,
            "cpu": 52.0,
            "memory_used": 2e9,
            "memory_total": 16e9,
        }
        for second in range(0, steps // 2, 6)
    ]
    (path / "system.jsonl").write_text("".join(json.dumps(row) + "\n" for row in system))
    (path / "worker.log").write_text("".join(f"line {number} of the log\n" for number in range(1, 40)))
    last = rows[-1] if rows else {}
    fields = {
        "state": state,
        "updated": time.time() - 7200,
        "step": steps,
        "total_steps": total or steps,
        "samples": steps * 8,
        "tokens": steps * 1024,
        "time": steps * 0.5,
        "stage": stages[-1],
        "stage_index": len(stages) - 1,
        "stages": len(stages),
        "device": "cpu",
        "loss": loss(steps) if steps else None,
        "lr": lr,
        "grad_norm": last.get("grad_norm"),
        "validation_loss": loss(steps) + 0.1 if steps >= 50 else None,
        "validation_key": "same",
        **status,
    }
    (path / "status.json").write_text(to_json(fields) + "\n")
    return path


def plant_live_run(root: Path, name: str, **more: Any) -> Path:
    """A run whose worker is this very process."""
    from lmplay.runs import mark_process

    more = {"steps": 120, "total": 400, "tokens_per_second": 2003.0, "eta_seconds": 140.0, **more}
    return plant_run(root, name, state="running", **{"updated": time.time(), **mark_process().fields(), **more})


def plant_many_runs(root: Path, count: int) -> None:
    """Runs that have ended, `run-0000` first: what a list reads of each, and no more."""
    model = plant_run(root, "model", steps=60)
    texts = {name: (model / name).read_text() for name in ("run.json", "status.json")}
    shutil.rmtree(model)
    for number in range(count):
        path = root / f"run-{number:04}"
        path.mkdir()
        for name, text in texts.items():
            (path / name).write_text(text.replace('"model"', f'"{path.name}"') if name == "run.json" else text)
        os.utime(path / "run.json", (START + number, START + number))


EXPERIMENTS = [
    {
        "name": "gpt2ish",
        "description": "Reference model. Loosely based on GPT-2.",
        "long_name": "gpt2ish",
        "module": "lmplay.exp.gpt2ish.versions",
        "broken": None,
    },
    {
        "name": "gpt2ish_med",
        "description": "Reference model, medium: 24 blocks.",
        "long_name": "gpt2ish_med",
        "module": "lmplay.exp.gpt2ish.versions",
        "broken": None,
    },
    {
        "name": "test_runner",
        "description": "Tiny model for quick tests.",
        "long_name": "test_runner",
        "module": "lmplay.exp.gpt2ish.versions",
        "broken": None,
    },
    {
        "name": "half_done",
        "description": "",
        "long_name": "",
        "module": "my_ideas.half_done.versions",
        "broken": "NameError: name 'Blok' is not defined (my_ideas/half_done/model.py, line 12)",
    },
]


def description_of(name: str, *, blocks: int = 6) -> dict[str, Any]:
    """As `describe --json` answers for a model of alike blocks."""

    def layer(layer_name: str, kind: str, depth: int, parameters: int) -> dict[str, Any]:
        return {
            "name": layer_name,
            "type": kind,
            "depth": depth,
            "parameters": parameters,
            "trainable_parameters": parameters,
            "input_size": [1, 64],
            "output_size": [1, 64, 32],
            "flops_per_token": parameters * 2,
        }

    layers = [
        layer("", "GPT2", 0, 10_000 + blocks * 3_000),
        layer("tok_embed", "Embedding", 1, 10_000),
        layer("blocks", "ModuleList", 1, blocks * 3_000),
    ]
    for index in range(blocks):
        layers += [
            layer(f"blocks.{index}", "Block", 2, 3_000),
            layer(f"blocks.{index}.attn", "Attention", 3, 1_000),
            layer(f"blocks.{index}.ff", "FeedForward", 3, 2_000),
        ]
    total = layers[0]["parameters"]
    return {
        "name": name,
        "description": f"{name} in words",
        "model_class": "lmplay.exp.gpt2ish.model.GPT2",
        "settings": {"max_len": 1024, "num_heads": 12, "num_blocks": blocks, "embed_dim": 768},
        "causal": True,
        "parameters": total,
        "trainable_parameters": total,
        "non_embedding_parameters": total - 10_000,
        "parameters_by_part": {"tok_embed": 10_000, "blocks": blocks * 3_000},
        "flops_per_token": total * 2,
        "training_flops_per_token": total * 6,
        "memory": {
            "weights": 112_000,
            "gradients": 112_000,
            "optimizer": 224_000,
            "activations": 900_000,
            "mini_batch_size": 4,
            "sequence_length": 1024,
            "total": 1_348_000,
        },
        "layers": layers,
    }


class FakeCommands(Commands):
    """Answers instead of subprocesses: `answers["describe"]` is a value, or a function of the arguments."""

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.answers: dict[str, Any] = {
            "list": EXPERIMENTS,
            "describe": lambda *arguments: description_of(arguments[0]),
            **(answers or {}),
        }
        self.asked: list[tuple[str, ...]] = []

    async def stream(
        self, *arguments: str, whole: bool = False, environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[Any]:
        self.asked.append(arguments)
        answer = self.answers.get(arguments[0])
        if answer is None:
            raise CommandError(f"no answer to {arguments[0]}")
        value = answer(*arguments[1:]) if callable(answer) else answer
        if isinstance(value, Exception):
            raise value
        for one in value if isinstance(value, _Stream) else [value]:
            await asyncio.sleep(0)
            yield one

    async def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        self.asked.append(arguments)
        answer = self.answers.get(arguments[0])
        value = answer(*arguments[1:]) if callable(answer) else answer
        if isinstance(value, Exception):
            raise value
        return str(value if value is not None else "")


class _Stream(list[Any]):
    """Several values, one after another."""


stream_of = _Stream

Drive = Callable[[Pilot[None], Workbench], Awaitable[None]]


def make_app(
    tmp_path: Path,
    *,
    mode: str = "experiments",
    commands: Commands | None = None,
    state: State | None = None,
    **options: Any,
) -> Workbench:
    """The workbench over `tmp_path/runs`, with fake commands and an index of its own."""
    commands = commands or FakeCommands()
    state = state or State(tmp_path / "state" / "workbench.json")
    state.set("mode", mode)
    index = ExperimentIndex(commands, tmp_path / "index.json")
    return Workbench(Options(runs=tmp_path / "runs", **options), state=state, commands=commands, index=index)


def drive(app: Workbench, do: Drive, *, size: tuple[int, int] = (120, 40)) -> None:
    """Run the app without a terminal and let `do` press its keys."""

    async def main() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            await do(pilot, app)

    asyncio.run(main())


def text_of(app: Workbench) -> str:
    """What stands on the screen."""
    # What lies below a dialog is drawn from this; without it rows are blank, and are kept so.
    visible_screen_stack.set(app._background_screens)
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


async def until(pilot: Pilot[None], condition: Callable[[], bool], *, what: str, seconds: float = 60.0) -> None:
    """Wait until something is so; fails with what stands on the screen."""
    end, rest = time.monotonic() + seconds, 0.02
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for: {what}\n{text_of(pilot.app)}"  # type: ignore[arg-type]
        await pilot.pause(rest)
        rest = min(0.2, rest * 1.3)  # what takes long isn't asked so often: the machine has something else to do


async def until_text(pilot: Pilot[None], text: str, *, seconds: float = 60.0) -> None:
    app: Any = pilot.app
    await until(pilot, lambda: text in text_of(app), what=f"{text!r} on the screen", seconds=seconds)


def check_snapshot(app: Workbench, name: str) -> None:
    """Hold the screen against the text kept for it; LMPLAY_SNAPSHOTS=update writes it anew, to be seen in the diff."""
    width, height = app.size
    file = SNAPSHOTS / f"{name}-{width}x{height}.txt"
    # Where this copy of the code lies is not a matter of the screen.
    found = re.sub(re.escape(str(REPO)) + r"\S*", "(path)", text_of(app)) + "\n"
    if os.environ.get("LMPLAY_SNAPSHOTS") == "update":
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8")
    assert file.exists(), f"no snapshot {file.name}: write it with LMPLAY_SNAPSHOTS=update"
    kept = file.read_text(encoding="utf-8")
    differs = "\n".join(difflib.unified_diff(kept.splitlines(), found.splitlines(), "kept", "found", lineterm="", n=0))
    assert found == kept, f"{file.name} differs; LMPLAY_SNAPSHOTS=update writes it anew\n{differs}"
