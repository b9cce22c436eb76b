"""A worker without a model: writes rows through RunWriter and obeys requests, as the trainer does.

python fake_worker.py RUN [--steps N] [--pause SECONDS] [--validate-every N] [--save-every N] ...
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import time
from pathlib import Path

from lmplay.runs import ControlInbox, RunWriter, find_checkpoint, list_checkpoints, point_to


def save(run: Path, step: int) -> None:
    folder = run / "checkpoints" / str(step)
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(
        json.dumps({"format": 1, "experiment": "fake", "model_class": "F", "init_kwargs": {}})
    )
    point_to(run / "checkpoints", "latest", folder.name)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--validate-every", type=int, default=10)
    parser.add_argument("--save-every", type=int, default=20)
    parser.add_argument("--crash-at", type=int, default=-1)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    print("fake worker began", flush=True)  # noqa: T201
    with RunWriter(asked.run) as writer, writer.heartbeat(interval=0.1, system_interval=0.5):
        inbox = ControlInbox(writer)
        step, lr, started = 0, 1e-3, time.monotonic()
        if list_checkpoints(asked.run):
            step = int(find_checkpoint(asked.run).name)
            writer.resumed(step)
        else:
            writer.event("started")
            writer.event("stage", stage="only")
        writer.status(state="running", total_steps=asked.steps, device=asked.device)
        stopping = paused = False
        while step < asked.steps and not stopping:
            for request in inbox.pending():
                if request.action == "set" and set(request.arguments) != {"train.lr"}:
                    inbox.acknowledge(request, "refused", reason="only train.lr can be set")
                    continue
                inbox.acknowledge(request, "accepted")
                if request.action == "set":
                    lr = request.arguments["train.lr"]
                elif request.action == "checkpoint":
                    save(asked.run, step)
                    writer.event("saved", checkpoint=str(step))
                elif request.action == "pause":
                    paused = True
                    writer.status(state="paused")
                elif request.action == "resume":
                    paused = False
                    writer.status(state="running")
                elif request.action == "stop":
                    stopping = True
                    writer.status(state="stopping")
                    save(asked.run, step)
                inbox.acknowledge(request, "done")
            if paused:
                time.sleep(0.01)
                continue
            step += 1
            loss = 3 + 8 * math.exp(-step / 50)
            position = {"step": step, "samples": step * 8, "tokens": step * 512, "time": time.monotonic() - started}
            row = {"kind": "train", "stage": "only", **position, "loss": loss, "lr": lr, "grad_norm": 1.0}
            writer.metrics({**row, "tokens_per_second": 5000.0})
            if step % asked.validate_every == 0:
                scores = {
                    "loss": loss + 0.1,
                    "perplexity": math.exp(loss + 0.1),
                    "bits_per_byte": loss / 3,
                    "accuracy": 0.2,
                }
                writer.metrics({"kind": "validate", "stage": "only", **position, **scores})
                writer.event("validated", loss=loss + 0.1, sample=f"The text of step {step}")
            if step % asked.save_every == 0:
                save(asked.run, step)
                writer.event("saved", checkpoint=str(step))
            if step == asked.crash_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if asked.pause:
                time.sleep(asked.pause)
        save(asked.run, step)
        writer.status(state="stopped" if stopping else "done")


if __name__ == "__main__":
    main()
