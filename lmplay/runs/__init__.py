"""Run directories: starting, writing, reading and steering a run, without torch.

The worker writes:

    with RunWriter(path) as writer, writer.heartbeat():
        inbox = ControlInbox(writer)
        writer.status(state="running")
        ...
        writer.metrics({"kind": "train", "stage": stage, "step": step, "samples": samples, "tokens": tokens,
                        "time": seconds_trained, "loss": loss, "lr": lr, ...})
        for request in inbox.pending():
            inbox.acknowledge(request, "accepted")
            ...
            inbox.acknowledge(request, "done")
        writer.status(state="done")

Everyone else reads; `docs/run_directory.md` describes the files.
"""

from lmplay.runs.control import ACTIONS, ControlInbox, Request, request
from lmplay.runs.follow import RunFollower, Update
from lmplay.runs.jsonl import JsonlAppender, JsonlTail, read_last_rows
from lmplay.runs.layout import create_run, is_run, list_runs, new_run_name, read_run_file, runs_root, write_run_file
from lmplay.runs.library import Run
from lmplay.runs.process import ProcessMark, is_alive, mark_process
from lmplay.runs.resolve import (
    find_checkpoint,
    list_checkpoints,
    point_to,
    read_pointer,
    resolve_checkpoint,
    resolve_run,
)
from lmplay.runs.settings import all_settings, differing, flat_config, steered
from lmplay.runs.spawn import kill_worker, mark_submitted, spawn_worker
from lmplay.runs.status import ACTIVE, ENDED, FINISHED, STATES, Status, is_live, read_status
from lmplay.runs.summary import RunSummary, summarize, summarize_all
from lmplay.runs.writer import Heartbeat, RunBusyError, RunGoneError, RunWriter

__all__ = [
    "ACTIONS",
    "ACTIVE",
    "ENDED",
    "FINISHED",
    "STATES",
    "ControlInbox",
    "Heartbeat",
    "JsonlAppender",
    "JsonlTail",
    "ProcessMark",
    "Request",
    "Run",
    "RunBusyError",
    "RunFollower",
    "RunGoneError",
    "RunSummary",
    "RunWriter",
    "Status",
    "Update",
    "all_settings",
    "create_run",
    "differing",
    "find_checkpoint",
    "flat_config",
    "is_alive",
    "is_live",
    "is_run",
    "kill_worker",
    "list_checkpoints",
    "list_runs",
    "mark_process",
    "mark_submitted",
    "new_run_name",
    "point_to",
    "read_last_rows",
    "read_pointer",
    "read_run_file",
    "read_status",
    "request",
    "resolve_checkpoint",
    "resolve_run",
    "runs_root",
    "spawn_worker",
    "steered",
    "summarize",
    "summarize_all",
    "write_run_file",
]
