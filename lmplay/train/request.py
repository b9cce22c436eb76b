"""What was asked of a run: the part of `run.json` from which the worker builds everything, and its layers of settings.

Nearer wins: command line, config file, the plan's stage, the runner's preset, the default. A request holds the first
two, already merged; the others are merged stage by stage in `stage_config`. Nothing here imports torch.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmplay.plans import Plan
from lmplay.plans.mistakes import first_mistake, refuse
from lmplay.train.config import DataConfig, Limits, TrainConfig
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.names import did_you_mean

Settings = TypeVar("Settings", bound=BaseModel)

# What a config file may hold beside the tables [model], [train], [data] and [limits].
TOP_LEVEL_KEYS = ("experiment", "plan", "seed", "device", "nproc", "shard", "initial_model")


class RunRequest(BaseModel):
    """Everything a worker is told. `model`, `train` and `data` hold only what a person typed, on top of the
    defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str = Field(description="registered name of the experiment")
    plan: str = Field("default", description="name of a plan, or path of a plan file")
    seed: int = Field(0, ge=0, lt=2**63, description="of the initial weights, the order of the data and dropout")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    nproc: int = Field(1, ge=1, description="processes on one machine that share each batch; one CUDA device each")
    shard: bool = Field(False, description="spread model and optimizer over the processes instead of copying them")
    initial_model: str | None = Field(None, description="run or checkpoint whose weights the training starts from")
    model: dict[str, Any] = Field(default_factory=dict, description="arguments of the model's constructor")
    train: dict[str, Any] = Field(default_factory=dict, description="fields of TrainConfig")
    data: dict[str, Any] = Field(default_factory=dict, description="fields of DataConfig")
    profile: int = Field(0, ge=0, description="steps whose course in time is written into the run's folder profile")
    limits: Limits = Field(default_factory=lambda: Limits(), description="where the run ends before its plan does")

    def stage_config(self, *, preset: Mapping[str, Any], stage: str, stage_train: Mapping[str, Any]) -> TrainConfig:
        """The settings of one stage, from the default up to what was typed."""
        validated(TrainConfig, preset, where="the runner's preset: train")
        validated(TrainConfig, stage_train, where=f"stage {stage!r} of the plan: train")
        return validated(TrainConfig, {**preset, **stage_train, **self.train}, where="train")

    def data_config(self) -> DataConfig:
        return validated(DataConfig, self.data, where="data")


def parse_assignments(assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`["model.num_blocks=2", "train.lr=1e-3"]` -> `{"model": {...}, "train": {...}, "data": {}}`.

    Values are read as JSON where they are JSON (numbers, true, false, null, lists), else as text. Keys of `train` and
    `data` are checked here; those of `model` need the model's class and are checked by its runner.
    """
    tables: dict[str, dict[str, Any]] = {"model": {}, "train": {}, "data": {}}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals:
            raise WrongUsageError(f"--set {assignment}: give it as key=value, for example train.lr=1e-3")
        table, dot, name = key.partition(".")
        if not dot or table not in tables:
            hint = f"; a setting of the model is written model.{key}" if not dot else ""
            raise WrongUsageError(f"--set: unknown key {key!r}{did_you_mean(key, known_keys()) or hint}")
        tables[table][name] = parse_value(text.strip())
    validated(TrainConfig, tables["train"], where="train")
    validated(DataConfig, tables["data"], where="data")
    return tables


def parse_value(text: str) -> Any:
    """JSON where it is JSON; Python's None, True and False too; everything else is text."""
    spelled = {"None": None, "True": True, "False": False}
    if text in spelled:
        return spelled[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def known_keys() -> list[str]:
    return [f"train.{name}" for name in TrainConfig.model_fields] + [f"data.{name}" for name in DataConfig.model_fields]


def validated(settings: type[Settings], values: Mapping[str, Any], *, where: str) -> Settings:
    """`settings(**values)`, or a `WrongUsageError` in one line that names the key, what is wrong and the nearest known
    key.
    """
    try:
        return settings.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = list(settings.model_fields)
            raise WrongUsageError(f"unknown key {where}.{name}{did_you_mean(name, known)}") from error
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise WrongUsageError(f"{where}.{name}={first['input']!r}: {reason}") from error


def check_stage_settings(plan: Plan) -> None:
    """Hold what the stages of a plan change of the training against what there is to change."""
    for index, stage in enumerate(plan.stages):
        try:
            TrainConfig.model_validate(stage.train)
        except ValidationError as error:
            place, message = first_mistake(error, lambda _: list(TrainConfig.model_fields))
            refuse(plan.label, f"stages[{index}].train.{place}", message)


def read_config_file(path: Path) -> dict[str, Any]:
    """A TOML file with top-level keys (`plan`, `seed`, ...) and the tables [model], [train], [data] and [limits]."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LMPlayError(f"the config file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise WrongUsageError(f"the config file {path} is not TOML: {error}") from error
    tables: dict[str, type[BaseModel] | None] = {
        "model": None,
        "train": TrainConfig,
        "data": DataConfig,
        "limits": Limits,
    }
    for key, value in content.items():
        if key in TOP_LEVEL_KEYS:
            continue
        if key not in tables:
            raise WrongUsageError(f"{path}: unknown key {key}{did_you_mean(key, [*TOP_LEVEL_KEYS, *tables])}")
        if not isinstance(value, dict):
            raise WrongUsageError(f"{path}: {key} is a table: write [{key}] and its keys below")
        if (settings := tables[key]) is not None:
            validated(settings, value, where=f"{path}: {key}")
    return content


def dump_config(request: RunRequest, train: TrainConfig, *, model: Mapping[str, Any]) -> str:
    """TOML of the whole: every key with its description; what is unset stands as a comment."""
    lines = ["# Settings of `lmplay run`, as --config reads them.", ""]
    for name in TOP_LEVEL_KEYS:
        lines += _toml_lines(name, getattr(request, name), RunRequest.model_fields[name].description)
    lines += ["", "[model]"]
    for name, value in model.items():
        lines += _toml_lines(name, value, None)
    for table, settings in (("train", train), ("data", request.data_config()), ("limits", request.limits)):
        lines += ["", f"[{table}]"]
        for name, field in type(settings).model_fields.items():
            lines += _toml_lines(name, getattr(settings, name), field.description)
    return "\n".join(lines) + "\n"


def _toml_lines(name: str, value: Any, description: str | None) -> list[str]:
    comment = [f"# {description}"] if description else []
    if value is None:
        return [*comment, f"# {name} ="]
    # JSON's strings, numbers, booleans and lists of these are TOML too.
    return [*comment, f"{name} = {json.dumps(value)}"]
