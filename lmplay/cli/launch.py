"""From what a person typed to a run directory with a worker in it: shared by `lmplay run` and `lmp_trainer`.

Everything that can be wrong is found here, before a run directory exists.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmplay.plans import Plan, load_plan
from lmplay.runs import (
    create_run,
    is_run,
    list_runs,
    mark_submitted,
    read_run_file,
    read_status,
    resolve_checkpoint,
    runs_root,
    spawn_worker,
    steered,
    write_run_file,
)
from lmplay.train.config import WITHOUT_EFFECT, Limits, TrainConfig
from lmplay.train.parallel.place import Place
from lmplay.train.parallel.slurm import submit
from lmplay.train.record import code_state, code_sum, provenance
from lmplay.train.request import (
    TOP_LEVEL_KEYS,
    RunRequest,
    check_stage_settings,
    parse_assignments,
    read_config_file,
    validated,
)
from lmplay.utils.errors import LMPlayError, WrongUsageError

if TYPE_CHECKING:
    from lmplay.base.base_model import LMBase
    from lmplay.base.base_runner import LMRunnerBase

# Schedules whose rate at a step doesn't depend on where the training ends.
ENDLESS_SCHEDULES = ("constant", "inverse_sqrt")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The command line, as it was typed: `None` is what was not said. `sets` are `key=value` texts."""

    experiment: str | None = None
    plan: str | None = None
    seed: int | None = None
    device: str | None = None
    nproc: int | None = None
    shard: bool | None = None
    initial_model: str | None = None
    sets: tuple[str, ...] = ()
    train: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, float | None] = field(default_factory=dict)
    config: Path | None = None
    profile: int = 0
    amp: bool = False
    force: bool = False
    elsewhere: bool = False  # trained on another machine: what this one has says nothing


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request that was checked against its experiment, its plan and this machine."""

    request: RunRequest
    plan: Plan
    runner: LMRunnerBase
    experiment_file: str

    def stage_configs(self) -> list[TrainConfig]:
        return [
            self.request.stage_config(preset=self.runner.train_preset, stage=stage.name, stage_train=stage.train)
            for stage in self.plan.stages
        ]

    def model_settings(self) -> dict[str, Any]:
        """Every argument of the model's constructor with the value that it will have."""
        return {
            name: self.request.model.get(name, parameter.default)
            for name, parameter in self.runner.model_parameters().items()
        }


def prepare(asked: Asked) -> Prepared:
    """Merge the command line over the config file and hold the result against what exists. Imports torch."""
    import torch

    from lmplay.base.runner_list import MODEL_RUNNERS, get_runner
    from lmplay.train.device import amp_precision, check_precision, check_shardable, choose_device
    from lmplay.train.update.optimizers import check_freezing

    file: dict[str, Any] = read_config_file(asked.config) if asked.config else {}
    typed = parse_assignments(asked.sets)
    top = {key: getattr(asked, key) if getattr(asked, key) is not None else file.get(key) for key in TOP_LEVEL_KEYS}
    if top["experiment"] is None:
        raise WrongUsageError("name the experiment to train; `lmplay list` shows them all")
    plan = load_plan(top["plan"] or "default")
    check_stage_settings(plan)
    train = {**file.get("train", {}), **typed["train"], **{k: v for k, v in asked.train.items() if v is not None}}
    model = {**file.get("model", {}), **typed["model"], **{k: v for k, v in asked.model.items() if v is not None}}
    runner = get_runner(str(top["experiment"]))
    model = runner.checked(model)
    nproc = top["nproc"] or 1
    place = Place(rank=0, size=nproc, local_rank=0, local_size=nproc)
    wish = top["device"] or "auto"
    device = torch.device("cpu" if wish == "cpu" else "cuda") if asked.elsewhere else choose_device(wish, place)
    if asked.amp and "precision" not in train:
        train["precision"] = "bf16" if asked.elsewhere else amp_precision(device)
    limits = {**file.get("limits", {}), **{k: v for k, v in asked.limits.items() if v is not None}}
    request = validated(
        RunRequest,
        {
            "experiment": runner.name,
            "plan": plan.name,
            "seed": plan.seed if top["seed"] is None else top["seed"],
            "device": wish,
            "nproc": nproc,
            "shard": bool(top["shard"]),
            "initial_model": _absolute_if_path(top["initial_model"]),
            "model": model,
            "train": train,
            "data": {**file.get("data", {}), **typed["data"]},
            "profile": asked.profile,
            "limits": validated(Limits, limits, where="limits"),
        },
        where="run",
    )
    request.data_config()
    prepared = Prepared(request=request, plan=plan, runner=runner, experiment_file=MODEL_RUNNERS[runner.name].file)
    names = [name for name, _ in _built(runner, model).named_parameters()]
    for config in prepared.stage_configs():
        check_precision(config.precision, device, force=asked.force)
        check_freezing(config.freeze, names)
        if request.shard:
            check_shardable(config)
    _check_sequence_length(prepared)
    if request.initial_model is not None:
        resolve_checkpoint(request.initial_model)
    return prepared


def _built(runner: LMRunnerBase, model: Mapping[str, Any]) -> LMBase:
    """Find out now, and not in the worker, that a constructor refuses its arguments."""
    import torch

    from lmplay.base.without_init import WithoutInit

    try:
        # Nor are weights drawn: the first draw on the meta device loads a second's worth of torch's compiler.
        with torch.device("meta"), WithoutInit():
            return runner.build_model(**model)
    except Exception:  # noqa: BLE001 - some constructors need real tensors: only a real failure is one
        return runner.build_model(**model)


def _check_sequence_length(prepared: Prepared) -> None:
    typed = prepared.request.train.get("sequence_length")
    max_len = prepared.model_settings().get("max_len")
    if typed is not None and isinstance(max_len, int) and typed > max_len:
        raise WrongUsageError(
            f"train.sequence_length={typed} is more than the model's max_len of {max_len}; set model.max_len too"
        )


def _absolute_if_path(name: str | None) -> str | None:
    """A checkpoint given as a path is found again from wherever the worker runs."""
    return str(Path(name).absolute()) if name is not None and Path(name).exists() else name


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The run directory that a command stands for, and how it came to be it."""

    path: Path
    is_new: bool
    state: str  # before the worker starts

    @property
    def finished(self) -> bool:
        return self.state == "done"


def take_run(prepared: Prepared, *, name: str | None, new: bool = False, allow_change: Iterable[str] = ()) -> Taken:
    """The run to go on with, or a new one.

    A name that exists is gone on with; without a name, so is the newest run of this very request that was interrupted,
    unless `new` is set. A request that differs from the run's own is refused, key by key, unless `allow_change` names
    it.
    """
    path = runs_root() / name if name else (None if new else _interrupted_twin(prepared))
    if path is None or not is_run(path):
        return Taken(path=_create(prepared, name), is_new=True, state="queued")
    if new:
        raise WrongUsageError(
            f"there is a run {name} already; choose another --name, or leave --new off to go on with it"
        )
    status = read_status(path)
    if status.active:
        raise LMPlayError(
            f"the run {path.name} is {status.state} (process {status.pid}); look at it with `lmplay attach {path.name}`"
        )
    _adopt_changes(path, prepared, set(allow_change))
    return Taken(path=path, is_new=False, state=status.state)


def _create(prepared: Prepared, name: str | None) -> Path:
    request, plan = prepared.request, prepared.plan
    return create_run(
        request.experiment,
        name=name,
        request=request.model_dump(mode="json"),
        plan={"name": plan.name, "folder": str(plan.folder), "content": plan.model_dump(mode="json")},
        config={
            "model": prepared.model_settings(),
            "data": request.data_config().model_dump(mode="json"),
            "stages": [
                {"name": stage.name, "train": config.model_dump(mode="json")}
                for stage, config in zip(plan.stages, prepared.stage_configs(), strict=True)
            ],
        },
        seed=request.seed,
        cost=_cost(prepared),
        **provenance(experiment_file=prepared.experiment_file),
    )


def _cost(prepared: Prepared) -> dict[str, Any]:
    """Parameters and FLOPs a token, for comparisons: a bigger model is no better idea. Empty where unknown."""
    from lmplay.checks.estimates import build_skeleton, count_parameters, estimate_flops

    try:
        model = build_skeleton(prepared.runner, **prepared.request.model)
        parameters, flops = count_parameters(model), estimate_flops(model)
    except Exception:  # noqa: BLE001 - an estimate that fails on somebody's model must not keep it from training
        return {}
    return {
        "parameters": parameters.total,
        "non_embedding_parameters": parameters.non_embedding,
        "flops_per_token": flops.forward,
        "training_flops_per_token": flops.training,
    }


def _interrupted_twin(prepared: Prepared) -> Path | None:
    """The newest run that was asked for in the same words, by the same code, and did not come to its end."""
    for path in list_runs():
        try:
            same = differences(read_run_file(path), prepared).keys() <= WITHOUT_EFFECT
            if same and read_status(path).state in {"lost", "stopped"}:
                return path
        except (LMPlayError, AttributeError, KeyError, TypeError):  # others than lmplay may make runs
            continue
    return None


def differences(run: Mapping[str, Any], prepared: Prepared) -> dict[str, tuple[Any, Any]]:
    """Keys in which a run differs from what is asked for now: {key: (the run's, the new one's)}. `code` is the
    beginning of a sum over the experiment's files.
    """
    request, plan = prepared.request.model_dump(mode="json"), prepared.plan.model_dump(mode="json")
    code = code_sum(Path(prepared.experiment_file).parent)
    was = (run.get("code") or {}).get("sum", code)
    old = _flat({"request": run["request"], "plan": run["plan"]["content"], "code": was[:8]})
    new = _flat({"request": request, "plan": plan, "code": code[:8]})
    # What `lmplay ctl set` changed may be typed as it is now, or as it was at first: both mean the run as it stands.
    typed = {
        **old,
        **dict.fromkeys(f"request.{key}" for key in steered(run)),
        **_flat({"request": run.get("typed_request", {})}),
    }
    changed = {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if new.get(key) not in (old.get(key), typed.get(key))
    }
    return {key.removeprefix("request."): values for key, values in changed.items()}


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys: `stages.0.samples`. Lists of plain values stay whole."""
    if isinstance(content, list) and all(isinstance(item, Mapping) for item in content):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping):
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _adopt_changes(path: Path, prepared: Prepared, allowed: set[str]) -> None:
    """Refuse a request that would make the rest of the run another experiment than its beginning; store what is
    allowed.
    """
    run = read_run_file(path)
    if not isinstance(run.get("request"), Mapping) or not isinstance(run.get("plan"), Mapping):
        raise LMPlayError(f"the run {path.name} was not started by lmplay run; choose another --name")
    changed = differences(run, prepared)
    endless = all(config.schedule in ENDLESS_SCHEDULES for config in prepared.stage_configs())

    def is_allowed(key: str) -> bool:
        return key in WITHOUT_EFFECT or any(key == name or key.startswith(f"{name}.") for name in allowed)

    refused = {
        key: values
        for key, values in changed.items()
        if not is_allowed(key) and not (endless and key.startswith("limits."))
    }
    if refused:
        said = {key: ["not set" if value is None else repr(value) for value in pair] for key, pair in refused.items()}
        listed = ", ".join(f"{key} was {old} and is now {new}" for key, (old, new) in said.items())
        options = " ".join(f"--allow-change {key}" for key in refused)
        raise WrongUsageError(
            f"the run {path.name} was started with other settings ({listed}): "
            f"go on all the same with {options}, or choose another --name"
        )
    if changed:
        plan = prepared.plan
        request = prepared.request.model_dump(mode="json")
        write_run_file(
            path,
            {
                **run,
                "typed_request": request,
                "request": _with({key: value for key, value in steered(run).items() if key not in changed}, request),
                "plan": {"name": plan.name, "folder": str(plan.folder), "content": plan.model_dump(mode="json")},
                "code": code_state(prepared.experiment_file),
            },
        )


def _with(settings: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """`request` with `{"train.lr": 1e-4, ...}` in its tables."""
    changed = dict(request)
    for key, value in settings.items():
        table, _, name = key.partition(".")
        changed[table] = {**changed[table], name: value}
    return changed


def set_history_aside(prepared: Prepared, name: str) -> Prepared:
    """Rename the run `name` to `<name>-before-<time>` and ask for a new one that starts from its weights."""
    path = runs_root() / name
    if not is_run(path):
        raise WrongUsageError(f"--reset-history: there is no run {name} in {runs_root()}")
    status = read_status(path)
    if status.active:
        raise LMPlayError(f"the run {name} is {status.state} (process {status.pid}); stop it first")
    resolve_checkpoint(name)
    kept = path.with_name(f"{name}-before-{time.strftime('%Y%m%d-%H%M%S')}")
    path.rename(kept)
    return replace(prepared, request=prepared.request.model_copy(update={"initial_model": kept.name}))


def start_worker(path: Path) -> int:
    """Start the worker of a run in a session of its own; returns its pid."""
    return spawn_worker(path, [sys.executable, "-m", "lmplay.train", str(path)])


def submit_worker(path: Path, request: RunRequest, options: Mapping[str, str]) -> str:
    """Submit the worker of a run to a scheduler; returns the id of the job."""
    job = submit(path, options, nproc=request.nproc, device=request.device)
    mark_submitted(path, job)
    return job
