"""A plan as typed objects: datasets, stages, budgets. Read by `read.py`; imports neither torch nor numpy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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


MAX_EPOCHS = 1_000_000


def _whole(value: Any) -> Any:
    """`1e9` is a whole number too; JSON knows only one kind."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=10**15)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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
    max_tokens: Count = Field(
        default=100_000, description="Hold out no more tokens than this; documents beyond it are trained on."
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
    max_tokens: Count | None = Field(
        default=None, description="Read the source up to this many tokens; nothing: all of it."
    )
    expected_tokens: Count | None = Field(
        default=None, description="Tokens to expect, for estimates before the dataset is prepared."
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
        default=None, gt=0, le=MAX_EPOCHS, description="Budget: passes over all rows of the stage's datasets."
    )
    tokens: Count | None = Field(default=None, description="Budget: tokens.")
    samples: Count | None = Field(default=None, description="Budget: rows of train.sequence_length tokens.")
    packing: PackingMode | None = Field(
        default=None, description="How documents fill rows; nothing: as the training says."
    )
    train: dict[str, Any] = Field(default_factory=dict, description="Settings of `train.*` that this stage changes.")

    @model_validator(mode="after")
    def _one_budget_and_real_shares(self) -> Self:
        for name, weight in self.datasets.items():
            if weight <= 0:
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
    label: str = Field(default="", exclude=True, description="What messages call the plan: its file as it was named.")
