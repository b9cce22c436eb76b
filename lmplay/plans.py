"""Plan files as typed objects: what a model is trained on, in which order and for how long.

Called by the command line, the worker, `lmplay.data` and the workbench; imports neither torch nor numpy.
Both forms of a plan end as the same `Plan`: the full one, and the short one, `{stage: {"dataset", "epochs"}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import lmplay
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean

SourceKind = Literal["hub", "json", "csv", "parquet", "text", "builtin", "python"]
PackingMode = Literal["stream", "document", "pad"]
BUILTIN_TEXTS = ("pydocs", "stdlib")

_FILE_ARGS = ("data_files", "data_dir", "split")
SOURCE_ARGS: Mapping[SourceKind, tuple[str, ...] | None] = {
    "hub": None,  # whatever `datasets.load_dataset` takes
    "json": (*_FILE_ARGS, "encoding", "field"),
    "csv": (*_FILE_ARGS, "encoding", "delimiter", "sep", "quotechar", "column_names"),
    "parquet": _FILE_ARGS,
    "text": (*_FILE_ARGS, "encoding", "sample_by"),
    "builtin": ("name",),
    "python": ("entry_point", "kwargs"),
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Fields(_Strict):
    """Which columns of a row hold what: a text, a prompt and its truth, or a conversation."""

    text: str | None = Field(default=None, min_length=1, description="Column of plain text; every token is learned.")
    prompt: str | None = Field(default=None, min_length=1, description="Column that is read but not learned.")
    truth: str | None = Field(
        default=None, min_length=1, description="Column that answers the prompt; only it is learned."
    )
    messages: str | None = Field(
        default=None, min_length=1, description="Column of {role, content} turns; the assistant's turns are learned."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = frozenset(name for name in ("text", "prompt", "truth", "messages") if getattr(self, name) is not None)
        if given not in ({"text"}, {"prompt", "truth"}, {"messages"}):
            raise ValueError("give `text`, or `prompt` and `truth`, or `messages`")
        return self


class Validation(_Strict):
    """The part of a dataset that is held out of training, the same one for every model."""

    share: float = Field(
        default=0.01, gt=0, lt=1, description="Share of the documents to hold out, chosen by a hash of each document."
    )
    max_tokens: int = Field(
        default=100_000, ge=1, description="Hold out no more tokens than this; documents beyond it are trained on."
    )
    split: str | None = Field(
        default=None, min_length=1, description="Use this split of the source instead of holding documents out."
    )


class DatasetSpec(_Strict):
    """Where documents come from and how they become text."""

    source: SourceKind = Field(description="Kind of the source.")
    args: dict[str, Any] = Field(default_factory=dict, description="Arguments of the source, as of load_dataset.")
    fields: Fields = Field(default=Fields(text="text"), description="Columns to read.")
    template: str | None = Field(
        default=None, description="How prompt and truth are joined: a text with {prompt} that ends in {truth}."
    )
    document_start: str | None = Field(
        default=None,
        min_length=1,
        description="Regular expression of rows that begin a document; other rows continue it, as lines.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Read the source up to this many tokens; nothing: all of it."
    )
    expected_tokens: int | None = Field(
        default=None, ge=1, description="Tokens to expect, for estimates before the dataset is prepared."
    )
    tokenizer: str = Field(default="gpt2", min_length=1, description="Name of a tiktoken encoding.")
    validation: Validation = Field(default=Validation(), description="The part held out of training.")

    @model_validator(mode="after")
    def _arguments_fit_the_source(self) -> Self:
        known = SOURCE_ARGS[self.source]
        for key in self.args:
            if known is not None and key not in known:
                hint = did_you_mean(key, known) or f"; known are {', '.join(known)}"
                raise ValueError(f"args.{key}: a {self.source} source takes no such argument{hint}")
        if self.source == "builtin" and self.args.get("name") not in BUILTIN_TEXTS:
            raise ValueError(f"args.name: the built-in texts are {' and '.join(BUILTIN_TEXTS)}")
        if self.source == "hub" and not isinstance(self.args.get("path"), str):
            raise ValueError('args.path: name the dataset, as in "wikimedia/wikipedia"')
        for key, instead in (
            ("token", "log in with `hf auth login`"),
            ("streaming", "hub sources are always streamed"),
        ):
            if self.source == "hub" and key in self.args:
                raise ValueError(f"args.{key}: a plan does not hold this; {instead}")
        if self.source == "python" and not isinstance(self.args.get("entry_point"), str):
            raise ValueError('args.entry_point: name the callable, as in "package.module:function"')
        if self.source in ("json", "csv", "parquet", "text") and not {"data_files", "data_dir"} & self.args.keys():
            raise ValueError("args.data_files: name a file, a pattern, or a list of them (or a folder as data_dir)")
        if self.source in ("text", "builtin") and self.fields.text is None:
            raise ValueError(f"fields: a {self.source} source has no columns; leave `fields` out")
        if self.document_start is not None:
            if self.fields.text is None:
                raise ValueError("document_start: only rows of text are joined")
            try:
                re.compile(self.document_start)
            except re.error as error:
                raise ValueError(f"document_start: no regular expression: {error}") from error
        if self.template is not None:
            if self.fields.prompt is None:
                raise ValueError("template: only rows of prompt and truth have one")
            if self.template.count("{prompt}") != 1 or not self.template.endswith("{truth}"):
                raise ValueError("template: it holds {prompt} once and ends in {truth}")
        return self


class Stage(_Strict):
    """One part of a training: its diet, its length, and what it changes of the training's settings."""

    name: str = Field(min_length=1, description="Name of the stage in charts and logs.")
    datasets: dict[str, float] = Field(min_length=1, description="Dataset -> its share of the tokens.")
    epochs: float | None = Field(
        default=None, gt=0, description="Budget: passes over all rows of the stage's datasets."
    )
    tokens: int | None = Field(default=None, ge=1, description="Budget: tokens.")
    samples: int | None = Field(default=None, ge=1, description="Budget: rows of train.sequence_length tokens.")
    packing: PackingMode | None = Field(
        default=None, description="How documents fill rows; nothing: as the training says."
    )
    train: dict[str, Any] = Field(default_factory=dict, description="Settings of `train.*` that this stage changes.")

    @model_validator(mode="after")
    def _one_budget_and_real_shares(self) -> Self:
        for name, weight in self.datasets.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"datasets.{name}: the weight {weight:g} is not a share; it must be above zero")
        if sum(budget is not None for budget in (self.epochs, self.tokens, self.samples)) != 1:
            raise ValueError("give one budget: `epochs`, `tokens` or `samples`")
        return self


class Plan(_Strict):
    """A whole diet: datasets by name, and the stages that use them in the order of the file."""

    version: Literal[1] = Field(description="Version of the plan format.")
    seed: int = Field(default=0, ge=0, description="Seed of the order of rows.")
    description: str = Field(default="", description="One line: what the plan is for and how large it is.")
    datasets: dict[str, DatasetSpec] = Field(min_length=1, description="The datasets by the names that stages use.")
    stages: tuple[Stage, ...] = Field(min_length=1, strict=False, description="The stages, in order.")
    name: str = Field(default="", exclude=True, description="Name of the plan: its file's, without the ending.")
    folder: Path = Field(Path(), exclude=True, description="Folder that relative paths start from.")


# ---- Datasets that need no declaration in the short form -----------------------------------------------------------

WIKITEXT_TITLE = r"^ = [^=].* = $"
"""The row that begins an article of WikiText, whose rows are paragraphs."""

KNOWN_DATASETS: Mapping[str, Mapping[str, Any]] = {
    "pydocs": {
        "source": "builtin",
        "args": {"name": "pydocs"},
        "expected_tokens": 140_000,
        "validation": {"share": 0.2, "max_tokens": 24_576},
    },
    "stdlib": {
        "source": "builtin",
        "args": {"name": "stdlib"},
        "expected_tokens": 5_200_000,
        "validation": {"share": 0.02, "max_tokens": 24_576},
    },
    "wikipedia": {
        "source": "hub",
        "args": {"path": "wikimedia/wikipedia", "name": "20231101.en"},
        "expected_tokens": 4_500_000_000,
        "validation": {"share": 0.0005, "max_tokens": 500_000},
    },
    "wikitext": {
        "source": "hub",
        "args": {"path": "Salesforce/wikitext", "name": "wikitext-103-raw-v1"},
        "document_start": WIKITEXT_TITLE,
        "expected_tokens": 118_000_000,
        "validation": {"split": "validation", "max_tokens": 500_000},
    },
    "tinystories": {
        "source": "hub",
        "args": {"path": "roneneldan/TinyStories"},
        "expected_tokens": 470_000_000,
        "validation": {"split": "validation", "max_tokens": 500_000},
    },
    "fineweb_edu": {
        "source": "hub",
        "args": {"path": "HuggingFaceFW/fineweb-edu", "name": "sample-10BT"},
        "expected_tokens": 10_000_000_000,
        "validation": {"share": 0.0002, "max_tokens": 500_000},
    },
}


# ---- Finding and reading plans --------------------------------------------------------------------------------------


def plans_folder() -> Path:
    """Where the ready plans are: inside an installed wheel, or beside the package in a checkout."""
    package = Path(lmplay.__file__).parent
    installed = package / "_plans"
    return installed if installed.is_dir() else package.parent / "plans"


def list_plans() -> list[str]:
    """Names of the ready plans, sorted."""
    return sorted(path.stem for path in plans_folder().glob("*.json"))


def load_plan(name_or_path: str | Path) -> Plan:
    """The plan of that name, or in that file. `WrongUsageError` names the place inside the file that is wrong."""
    path = _find(name_or_path)
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WrongUsageError(f"{path}: the plan can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise WrongUsageError(f"{path}: the plan is not UTF-8 text (byte {error.start})") from error
    try:
        parsed = json.loads(content, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise WrongUsageError(f"{path}: not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except _BadJSONError as error:
        raise WrongUsageError(f"{path}: {error}") from error
    return parse_plan(parsed, name=path.stem, folder=path.parent.absolute(), label=str(path))


def parse_plan(parsed: Any, *, name: str, folder: Path, label: str | None = None) -> Plan:
    """The plan of a parsed JSON value, in either form. `label` starts each error message; the name, unless given."""
    label = label or name
    if not isinstance(parsed, dict):
        _refuse(label, "", "a plan is a JSON object")
    full = _from_short_form(parsed, label) if _is_short_form(parsed) else dict(parsed)
    for taken in ("name", "folder"):
        if taken in full:
            _refuse(label, taken, "unknown key; a plan is named by its file")
    full["datasets"] = _resolve_likeness(full.get("datasets"), label)
    try:
        plan = Plan.model_validate({**full, "name": name, "folder": folder})
    except ValidationError as error:
        _refuse(label, *_first_error(error))
    seen: set[str] = set()
    for index, stage in enumerate(plan.stages):
        if stage.name in seen:
            _refuse(label, f"stages[{index}].name", f"another stage is called {stage.name!r} already")
        seen.add(stage.name)
        for dataset in stage.datasets:
            if dataset not in plan.datasets:
                hint = did_you_mean(dataset, plan.datasets) or "; declare it under `datasets`"
                _refuse(label, f"stages[{index}].datasets.{dataset}", f"there is no dataset of this name{hint}")
    return plan


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    text = str(name_or_path)
    ready = plans_folder() / f"{text}.json"
    if isinstance(name_or_path, str) and path.name == text and ready.is_file():
        return ready
    if path.name != text or path.suffix == ".json":
        raise WrongUsageError(f"there is no plan file {path}{did_you_mean(path.stem, list_plans())}")
    known = list_plans()
    hint = did_you_mean(text, known) or f"; known are {', '.join(known)}, or give the path of a file"
    raise WrongUsageError(f"there is no plan {text!r}{hint}")


def _is_short_form(parsed: Mapping[str, Any]) -> bool:
    return not {"version", "stages", "datasets"} & parsed.keys()


def _from_short_form(parsed: Mapping[str, Any], label: str) -> dict[str, Any]:
    """`{stage: {"dataset", "epochs"}}` as the full form; `dataset` is one of `KNOWN_DATASETS`."""
    if not parsed:
        _refuse(label, "", "the plan has no stages")
    datasets: dict[str, Any] = {}
    stages = []
    for name, entry in parsed.items():
        if not isinstance(entry, dict):
            _refuse(label, name, 'a stage is an object, {"dataset": ..., "epochs": ...}')
        for key in entry:
            if key not in ("dataset", "epochs"):
                _refuse(label, f"{name}.{key}", f"unknown key{did_you_mean(key, ('dataset', 'epochs'))}")
        for key in ("dataset", "epochs"):
            if key not in entry:
                _refuse(label, name, f"the stage has no `{key}`")
        dataset = entry["dataset"]
        if dataset not in KNOWN_DATASETS:
            hint = did_you_mean(str(dataset), KNOWN_DATASETS) or f"; known are {', '.join(sorted(KNOWN_DATASETS))}"
            _refuse(label, f"{name}.dataset", f"there is no known dataset {dataset!r}{hint}")
        epochs = entry["epochs"]
        if isinstance(epochs, bool) or not isinstance(epochs, int | float) or epochs <= 0:
            _refuse(label, f"{name}.epochs", "epochs is a number above zero")
        datasets[dataset] = KNOWN_DATASETS[dataset]
        stages.append({"name": name, "datasets": {dataset: 1.0}, "epochs": epochs})
    return {"version": 1, "datasets": datasets, "stages": stages}


def _resolve_likeness(datasets: Any, label: str) -> Any:
    """Replace `{"like": other, ...}` by the other's entry with these keys changed; anything odd is left to pydantic."""
    if not isinstance(datasets, dict):
        return datasets

    def resolve(name: str, trail: tuple[str, ...]) -> Any:
        entry = datasets[name]
        if not isinstance(entry, dict) or "like" not in entry:
            return entry
        other = entry["like"]
        place = f"datasets.{name}.like"
        if other in (*trail, name):
            _refuse(label, place, f"a cycle of names: {' -> '.join((*trail, name, other))}")
        if other not in datasets:
            _refuse(label, place, f"there is no dataset {other!r}{did_you_mean(str(other), datasets)}")
        base = resolve(other, (*trail, name))
        own = {key: value for key, value in entry.items() if key != "like"}
        return {**base, **own} if isinstance(base, dict) else base

    return {name: resolve(name, ()) for name in datasets}


class _BadJSONError(Exception):
    pass


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _BadJSONError(f"the key {key!r} stands twice in the same object")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise _BadJSONError(f"{name} is not a number that a plan can hold")


def _refuse(label: str, place: str, message: str) -> NoReturn:
    raise WrongUsageError(f"{label}: {place}: {message}" if place else f"{label}: {message}")


def _first_error(error: ValidationError) -> tuple[str, str]:
    """Place inside the file, as in `stages[1].datasets.wiki`, and what is wrong there."""
    first = error.errors(include_url=False)[0]
    place = ""
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    message = first["msg"]
    if first["type"] == "extra_forbidden":
        message = f"unknown key{did_you_mean(str(first['loc'][-1]), _keys_at(first['loc'][:-1]))}"
    elif first["type"] == "missing":
        message = "this key is missing"
    elif first["type"] == "value_error":
        message = message.removeprefix("Value error, ")
        inner, separator, rest = message.partition(": ")
        if separator and " " not in inner:  # a validator named the key below its own object
            place, message = f"{place}.{inner}" if place else inner, rest
    elif first["type"] in ("too_short",):
        message = "it is empty"
    else:
        message = message[0].lower() + message[1:]
    return place, message


def _keys_at(location: tuple[str | int, ...]) -> list[str]:
    names = [part for part in location if isinstance(part, str)]
    model: type[BaseModel] = Plan
    if names[:1] == ["stages"]:
        model = Stage
    elif names[:1] == ["datasets"]:
        inner: dict[str, type[BaseModel]] = {"fields": Fields, "validation": Validation}
        model = inner.get(names[-1], DatasetSpec)
    return [name for name in model.model_fields if model is not Plan or name not in ("name", "folder")]
