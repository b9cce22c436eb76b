"""The worker: the process that takes a run directory, builds what its `run.json` asks for, and trains.

Started as `python -m lmplay.train RUN_DIRECTORY`, by `lmplay run` or by anyone else. It goes on from the newest whole
checkpoint if there is one. What it prints lands in `worker.log`; what it reports goes through `RunWriter`.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

from lmplay.base.base_model import LMBase
from lmplay.base.base_runner import LMRunnerBase
from lmplay.base.model_files import load_model
from lmplay.base.runner_list import get_runner
from lmplay.data import open_stage, open_validation
from lmplay.plans import Plan, parse_plan
from lmplay.runs import RunWriter, read_run_file, read_status, resolve_checkpoint
from lmplay.train.checkpoint import newest_whole_checkpoint
from lmplay.train.config import TrainConfig
from lmplay.train.control import Control, StopTraining
from lmplay.train.device import check_precision, choose_device, set_matmul_precision
from lmplay.train.loop import Stage, Trainer
from lmplay.train.randomness import seed_everything
from lmplay.train.request import RunRequest
from lmplay.utils.errors import LMPlayError, WrongUsageError


def work(folder: Path) -> int:
    """Train the run in `folder` to its end; the exit status: 0 done or stopped on request, 1 failed, 128+n for signal
    n.
    """
    run = read_run_file(folder)
    with RunWriter(folder) as writer, writer.heartbeat():
        try:
            trainer = build_trainer(folder, run, writer)
            trainer.train()
        except StopTraining as stop:
            writer.event("stopped", reason=stop.reason)
            writer.status(state="stopped", reason=stop.reason, activity=None)
            return stop.exit_status
        except KeyboardInterrupt:
            writer.event("stopped", reason="interrupted twice: not saved")
            writer.status(state="stopped", reason="interrupted twice: not saved", activity=None)
            return 130
        except LMPlayError as error:
            traceback.print_exc()
            writer.failed(error)
            return error.exit_status
        except Exception as error:  # noqa: BLE001 - a model may throw anything; it is reported, never swallowed
            traceback.print_exc()
            writer.failed(error)
            return 1
        writer.event("finished", step=trainer.progress.step)
        writer.status(state="done", activity=None, **trainer.position())
        return 0


def build_trainer(folder: Path, run: dict[str, Any], writer: RunWriter) -> Trainer:
    """The trainer of a run, standing at its newest whole checkpoint or at the beginning."""
    request = RunRequest.model_validate(run["request"])
    plan = parse_plan(run["plan"]["content"], name=run["plan"]["name"], folder=Path(run["plan"]["folder"]))
    device = choose_device(request.device)
    runner = get_runner(request.experiment)
    found = newest_whole_checkpoint(folder / "checkpoints")
    for problem in found.damaged if found else ():
        writer.event("warning", message=f"{problem}: passed over")
    seed_everything(request.seed)
    model = load_model(found.folder) if found else build_model(runner, request)
    model.to(device)
    configs = stage_configs(request, runner, plan, model.max_len)
    for config in configs:
        check_precision(config.precision, device, force=True)  # who started the run was asked already
    set_matmul_precision(configs[0].precision)
    control = Control(writer, request, lambda changed: stage_configs(changed, runner, plan, model.max_len))
    control.listen()

    def report_preparation(what: str, done: int, total: int | None) -> None:
        control.obey_before_training()
        writer.status(activity=f"{what} {done / total:.0%}" if total else f"{what} {done:,}")

    packing = request.data_config().packing
    data = [
        open_stage(
            plan,
            index,
            sequence_length=length_of(config),
            packing=plan.stages[index].packing or packing,
            seed=request.seed,
            progress=report_preparation,
        )
        for index, config in enumerate(configs)
    ]
    validation = open_validation(
        plan,
        sequence_length=max(length_of(config) for config in configs),
        packing=packing,
        progress=report_preparation,
    )
    trainer = Trainer(
        model=model,
        experiment=request.experiment,
        stages=[
            Stage(name=stage.name, config=config, data=rows)
            for stage, config, rows in zip(plan.stages, configs, data, strict=True)
        ],
        validation=validation if validation.num_rows else None,
        limits=request.limits,
        device=device,
        folder=folder,
        log=writer,
        seed=request.seed,
        obey=control.obey,
    )
    if found:
        trainer.restore(found.folder)
        writer.resumed(trainer.progress.step, checkpoint=found.folder.name)
    else:
        if read_status(folder).step:
            writer.resumed(0)  # killed before its first checkpoint: what it had logged did not last
        writer.event("started", device=str(device), parameters=sum(p.numel() for p in model.parameters()))
    writer.status(
        state="running", activity=None, device=str(device), validation_key=validation.key, **trainer.position()
    )
    return trainer


def build_model(runner: LMRunnerBase, request: RunRequest) -> LMBase:
    """A fresh model, or one that starts from the weights of `initial_model`."""
    model = runner.build_model(**request.model)
    if request.initial_model is None:
        return model
    folder = resolve_checkpoint(request.initial_model)
    try:
        model.load_state_dict(load_model(folder).state_dict())
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise WrongUsageError(
            f"the weights of {request.initial_model} do not fit {request.experiment} with these settings: {first}"
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
    finally:
        sys.stdout.flush()
