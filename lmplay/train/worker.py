"""The worker: the process that takes a run directory, builds what its `run.json` asks for, and trains.

Started as `python -m lmplay.train RUN_DIRECTORY`, by `lmplay run` or by anyone else; by torchrun as one of several
processes, of which the first one leads and writes. It goes on from the newest whole checkpoint if there is one. What
it prints lands in `worker.log`; what it reports goes through `RunWriter`.
"""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from lmplay.base.base_model import LMBase
from lmplay.base.base_runner import LMRunnerBase
from lmplay.base.model_files import load_model
from lmplay.base.runner_list import MODEL_RUNNERS, get_runner
from lmplay.data import ValidationData, open_stage, open_validation
from lmplay.plans import Plan, parse_plan
from lmplay.runs import RunGoneError, RunWriter, read_run_file, read_status, resolve_checkpoint
from lmplay.train.config import TrainConfig
from lmplay.train.control import Control
from lmplay.train.course import Course, Stage
from lmplay.train.device import check_precision, choose_device
from lmplay.train.early_signals import remembered
from lmplay.train.headway import Headway
from lmplay.train.keep.checkpoint import (
    FoundCheckpoint,
    clear_remainders,
    newest_whole_checkpoint,
    set_damaged_aside,
)
from lmplay.train.keep.randomness import seed_everything
from lmplay.train.loop import Trainer
from lmplay.train.orders import StopTraining
from lmplay.train.parallel.following import SilentWriter, print_into_log
from lmplay.train.parallel.place import Place, place_in
from lmplay.train.parallel.siblings import share_cores, siblings
from lmplay.train.parallel.watch import LostError
from lmplay.train.parallel.world import World, joined
from lmplay.train.record import code_sum
from lmplay.train.request import RunRequest
from lmplay.train.update.memory import keep_freed_memory
from lmplay.utils.errors import LMPlayError, WrongUsageError


def work(folder: Path) -> int:
    """Train the run in `folder` to its end; the exit status: 0 done or stopped on request, 1 failed, 3 when the folder
    was taken away meanwhile, 128+n for signal n.
    """
    run = read_run_file(folder)
    given = place_in()
    if given is not None and given.rank > 0:
        return _follow(folder, run, given)
    with RunWriter(folder) as writer, writer.heartbeat():
        try:
            _heed(remembered())
            request = RunRequest.model_validate(run["request"])
            place = given or Place(rank=0, size=request.nproc, local_rank=0, local_size=request.nproc)
            share_cores(place)
            device = choose_device(request.device, place)
            with (
                siblings(folder, place.size if given is None else 1) as (store, others),
                joined(
                    place, device, shard=request.shard, store=store, children=others, on_loss=writer.lost_process
                ) as world,
            ):
                trainer = build_trainer(folder, run, writer, device, world)
                stop = _train(trainer)
        except StopTraining as alone:
            stop = alone
        except KeyboardInterrupt:
            return _end(writer, "stopped", 130, reason="interrupted twice: not saved")
        except RunGoneError as error:
            return _gone(error)
        except LMPlayError as error:
            traceback.print_exc()
            return _fail(writer, error, error.exit_status)
        except Exception as error:  # noqa: BLE001 - a model may throw anything; it is reported, never swallowed
            traceback.print_exc()
            return _fail(writer, error, 1)
        if stop is not None:
            return _end(writer, "stopped", stop.exit_status, reason=stop.reason)
        return _end(writer, "done", 0, **trainer.report.position())


def _train(trainer: Trainer) -> StopTraining | None:
    """To the end, or to where all processes stopped together."""
    try:
        trainer.train()
    except StopTraining as stop:
        if stop.alone:
            raise
        return stop
    trainer.log.event("finished", step=trainer.course.progress.step)
    return None


def _follow(folder: Path, run: dict[str, Any], place: Place) -> int:
    """The work of a process that is not the first: the same steps, of which it writes nothing."""
    print_into_log(folder, place.rank)
    share_cores(place)
    try:
        _heed(remembered())
        request = RunRequest.model_validate(run["request"])
        device = choose_device(request.device, place)
        with joined(place, device, shard=request.shard) as world:
            stop = _train(build_trainer(folder, run, SilentWriter(folder), device, world))
            return stop.exit_status if stop is not None else 0
    except StopTraining as stop:
        return stop.exit_status
    except KeyboardInterrupt:
        return 130
    except LostError:
        return 1  # the first process says what has happened
    except Exception as error:  # noqa: BLE001 - as above
        traceback.print_exc()
        return error.exit_status if isinstance(error, LMPlayError) else 1


def _heed(asked: signal.Signals | None) -> None:
    if asked is not None:
        raise StopTraining(asked.name, exit_status=128 + asked, alone=True)


def _end(writer: RunWriter, state: str, exit_status: int, **fields: Any) -> int:
    """The last words; they are not waited for: a full disk must not keep a process that is to end."""
    try:
        if state == "stopped":
            writer.event("stopped", **fields)
        writer.status(state=state, activity=None, exit_status=exit_status, **fields)
    except RunGoneError as error:
        return _gone(error)
    except OSError as error:
        print(f"the run is {state}, which could not be written: {error}", file=sys.stderr)  # noqa: T201
    return exit_status


def _fail(writer: RunWriter, error: Exception, exit_status: int) -> int:
    """A folder that was taken away makes everything else fail: then that is what is said."""
    try:
        writer.failed(error)
    except RunGoneError as gone:
        return _gone(gone)
    return exit_status


def _gone(error: RunGoneError) -> int:
    print(f"lmplay: {error}", file=sys.stderr)  # noqa: T201
    return error.exit_status


def build_trainer(
    folder: Path,
    run: dict[str, Any],
    writer: RunWriter | SilentWriter,
    device: torch.device | None = None,
    world: World | None = None,
) -> Trainer:
    """The trainer of a run, standing at its newest whole checkpoint or at the beginning."""
    request = RunRequest.model_validate(run["request"])
    device, world = device or choose_device(request.device), world or World()
    plan = parse_plan(run["plan"]["content"], name=run["plan"]["name"], folder=Path(run["plan"]["folder"]))
    keep_freed_memory(device)
    runner = get_runner(request.experiment)
    checkpoints = folder / "checkpoints"
    found = world.from_first(find_checkpoint(checkpoints, writer) if world.is_first else None)
    seed_everything(request.seed)
    # Built in full even where weights are about to be loaded: buffers may come of random numbers too.
    model = build_model(runner, request, with_weights=found is None).to(device)
    configs = stage_configs(request, runner, plan, model.max_len)
    for config in configs:
        check_precision(config.precision, device, force=True)  # who started the run was asked already
    control = Control(writer, request, lambda changed: stage_configs(changed, runner, plan, model.max_len), world)
    control.listen()
    if not world.is_first:
        world.from_first(None)  # it prepares what has to be prepared; afterwards everyone finds it
    stages, validation = open_data(plan, configs, request, control)
    if world.is_first:
        world.from_first(None)
    world.seed(request.seed)
    control.in_step = True
    trainer = Trainer(
        model=model,
        experiment=request.experiment,
        course=Course(stages, request.limits),
        validation=validation if validation.num_rows else None,
        device=device,
        checkpoints=checkpoints,
        log=control.log,
        seed=request.seed,
        orders=control,
        world=world,
        profile_steps=request.profile if world.is_first else 0,
    )
    if found:
        trainer.restore(found.folder)
        control.log.resumed(trainer.course.progress.step, checkpoint=found.folder.name)
        code = run.get("code", {}).get("sum")
        if code not in (None, code_sum(Path(MODEL_RUNNERS[runner.name].file).parent)):
            control.log.event("warning", message="the files of the experiment have changed since the run began")
    elif world.is_first:
        if read_status(folder).step:
            control.log.resumed(0)  # killed before its first checkpoint: what it had logged did not last
        parameters = sum(parameter.numel() for parameter in model.parameters())
        several = {"processes": world.size} if world.size > 1 else {}
        control.log.event("started", device=str(device), parameters=parameters, **several)
    where = trainer.report.position()
    control.log.status(state="running", activity=None, device=str(device), validation_key=validation.key, **where)
    return trainer


def find_checkpoint(checkpoints: Path, writer: RunWriter | SilentWriter) -> FoundCheckpoint | None:
    """The newest whole checkpoint; damaged ones beyond it are set aside, so that nothing takes them for whole."""
    clear_remainders(checkpoints)
    found = newest_whole_checkpoint(checkpoints)
    if found is not None and found.damaged:
        set_damaged_aside(checkpoints, after=found.step)
        for problem in found.damaged:
            writer.event("warning", message=f"{problem}: set aside; going on from step {found.step}")
    return found


def open_data(
    plan: Plan, configs: list[TrainConfig], request: RunRequest, control: Control
) -> tuple[list[Stage], ValidationData]:
    """The rows of every stage and of the validation part; what is not prepared yet is prepared now."""

    headway: dict[str, Headway] = {}

    def report_preparation(what: str, done: int, total: int | None) -> None:
        control.heed_stop()
        if what not in headway:
            headway[what] = Headway(done)
            control.log.status(activity=what, activity_done=done, activity_total=total)
        elif news := headway[what].news(done, total):
            control.log.status(activity=what, **news)

    packing = request.data_config().packing
    stages = []
    for index, (stage, config) in enumerate(zip(plan.stages, configs, strict=True)):
        rows = open_stage(
            plan,
            index,
            sequence_length=length_of(config),
            packing=stage.packing or packing,
            seed=request.seed,
            progress=report_preparation,
        )
        stages.append(Stage(name=stage.name, config=config, data=rows))
    validation = open_validation(
        plan,
        sequence_length=max(length_of(config) for config in configs),
        packing=packing,
        progress=report_preparation,
    )
    return stages, validation


def build_model(runner: LMRunnerBase, request: RunRequest, *, with_weights: bool = True) -> LMBase:
    """A fresh model, or one that starts from the weights of `initial_model` unless they are about to be replaced."""
    model = runner.build_model(**request.model)
    if request.initial_model is None or not with_weights:
        return model
    saved = load_model(resolve_checkpoint(request.initial_model))
    try:
        model.load_state_dict(saved.state_dict())
    except RuntimeError as error:
        own, theirs = model.init_kwargs, saved.init_kwargs
        sets = [f"--set model.{key}={value}" for key, value in theirs.items() if own.get(key, value) != value]
        hint = f"theirs are {' '.join(sets)}" if sets else " ".join(str(error).split())[:300]
        raise WrongUsageError(
            f"the weights of {request.initial_model} do not fit {request.experiment} with these settings: {hint}"
        ) from error
    return model


def stage_configs(request: RunRequest, runner: LMRunnerBase, plan: Plan, max_len: int) -> list[TrainConfig]:
    """The settings of every stage, each with the sequence length it really has."""
    configs = []
    for stage in plan.stages:
        config = request.stage_config(preset=runner.train_preset, stage=stage.name, stage_train=stage.train)
        typed = request.train.get("sequence_length")
        if typed is not None and typed > max_len:
            raise WrongUsageError(
                f"train.sequence_length={typed} is more than the model's max_len of {max_len}; set model.max_len too"
            )
        length = min(config.sequence_length or max_len, max_len)
        configs.append(config.model_copy(update={"sequence_length": length}))
    return configs


def length_of(config: TrainConfig) -> int:
    assert config.sequence_length is not None, "stage_configs has resolved it"
    return config.sequence_length


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m lmplay.train RUN_DIRECTORY", file=sys.stderr)  # noqa: T201
        return 2
    try:
        return work(Path(arguments[0]))
    except LMPlayError as error:
        print(f"lmplay: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_status
