"""Everything about training that can be set: one field, one description, one default.

The descriptions are the help of the command line, the rows of `--dump-config` and the tooltips of the workbench.
Keys are written dotted: `train.lr`, `data.packing`; `model.*` keys belong to the model's own constructor.
Nothing here imports torch: the command line reads it before a worker exists.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

OptimizerName = Literal["adamw", "adam", "adagrad", "sgd", "rmsprop", "muon"]
ScheduleName = Literal["constant", "linear", "cosine", "wsd", "inverse_sqrt"]
PrecisionName = Literal["float32", "tf32", "bf16", "fp16"]
LossForm = Literal["auto", "plain", "chunked"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainConfig(_Settings):
    """How a stage is trained. Batch sizes and intervals count samples; a sample is one row of `sequence_length`
    tokens.
    """

    batch_size: int = Field(50, ge=1, description="samples in one optimizer update")
    mini_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        4,
        description="samples computed at once; smaller pieces need less memory and never change the loss; "
        "auto takes the most that fit",
    )
    sequence_length: int | None = Field(
        None, ge=2, description="tokens in a sample; the model's max_len when not set, and never more than that"
    )
    lr: float = Field(6e-4, gt=0, description="peak learning rate")
    schedule: ScheduleName = Field("constant", description="course of the learning rate after the warm-up")
    warmup_steps: int = Field(100, ge=0, description="optimizer updates in which the learning rate rises linearly")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="share of the peak that a decaying schedule ends at")
    decay_share: float = Field(0.2, gt=0, le=1, description="share of the stage in which the schedule wsd decays")
    optimizer: OptimizerName = Field("adamw", description="rule of the update; muon takes matrices, AdamW the rest")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of gradients (momentum for sgd and rmsprop)")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the mean of squared gradients")
    eps: float = Field(1e-8, gt=0, description="added to the denominator of adaptive optimizers")
    weight_decay: float = Field(
        0.01,
        ge=0,
        description="decay of matrices, decoupled for adamw and muon, part of the gradient for the others; "
        "biases, norms and embeddings are never decayed",
    )
    grad_clip: float = Field(1.0, ge=0, description="largest norm of the whole gradient; 0 leaves it as it is")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of its old value that a moving average of the weights keeps at each update; "
        "the average is then what is validated and saved as the model; 0 for none",
    )
    freeze: tuple[str, ...] = Field((), description="parameters left untrained: name patterns such as tok_embed.*")
    precision: PrecisionName = Field(
        "float32", description="float32; tf32 on CUDA; bf16 or fp16 autocast with float32 weights"
    )
    loss: LossForm = Field(
        "auto", description="chunked never holds all logits at once; auto takes it where the model gives hidden states"
    )
    compile: bool = Field(False, description="compile the blocks of the model; seldom worth its minute on a CPU")
    deterministic: bool = Field(
        False, description="on CUDA, only kernels whose results repeat bit by bit; on a CPU they do in any case"
    )
    max_bad_steps: int = Field(
        5, ge=1, description="updates in a row without a finite loss and gradient before the run goes back, then ends"
    )
    spike_sigmas: float = Field(
        6.0, ge=0, description="deviations above its running mean at which a loss is marked as a spike; 0 for never"
    )
    validation_interval: int = Field(5_000, ge=1, description="samples between passes over the validation text")
    diagnostics_interval: int | None = Field(
        None, ge=1, description="samples between measurements of the gradient's noise scale and of each block's update"
    )
    save_interval: int = Field(5_000, ge=1, description="samples between checkpoints")
    keep_checkpoints: int = Field(
        2, ge=0, description="newest checkpoints kept, 0 for all; the best one is kept in any case"
    )
    keep_every: int | None = Field(None, ge=1, description="samples between checkpoints that are kept for good")
    keep_stage_ends: bool = Field(True, description="keep the checkpoint at the end of each stage for good")
    keep_free_gb: float = Field(
        0.0, ge=0, description="when less is free on the disk, older checkpoints go, but for the best and the newest"
    )
    sample_prompt: str = Field("The", description="prompt of the text generated at each validation")
    sample_tokens: int = Field(40, ge=0, description="tokens generated at each validation; 0 for none")

    @model_validator(mode="after")
    def _piece_within_batch(self) -> TrainConfig:
        if self.mini_batch_size != "auto" and self.mini_batch_size > self.batch_size:
            # A plan for a large batch stays usable with a small one: the piece is a matter of memory only.
            return self.model_copy(update={"mini_batch_size": self.batch_size})
        return self


class DataConfig(_Settings):
    """How the tokens of a plan become rows."""

    packing: Literal["stream", "document", "pad"] = Field(
        "stream", description="stream: contiguous windows; document: whole documents packed; pad: one document a row"
    )


class Limits(_Settings):
    """Where a run ends before its plan does. The first limit that is reached counts."""

    steps: int | None = Field(None, ge=0, description="optimizer updates")
    samples: int | None = Field(None, ge=0, description="samples")
    tokens: int | None = Field(None, ge=0, description="target tokens")
    hours: float | None = Field(
        None, gt=0, description="hours of one worker's life; it saves before they are over, and can be started again"
    )


# Settings that leave the course of the training as it is: a run may go on with others without a word.
WITHOUT_EFFECT = frozenset(
    {"limits.hours", "profile", "nproc", "shard"}
    | {f"train.{name}" for name in ("save_interval", "max_bad_steps", "spike_sigmas", "diagnostics_interval")}
    | {f"train.{name}" for name in ("keep_checkpoints", "keep_every", "keep_stage_ends", "keep_free_gb")}
    | {f"train.{name}" for name in ("sample_prompt", "sample_tokens")}
)
