"""The versions of the baseline with an auxiliary loss."""

from lmplay.base.base_model import BasicModelRunner
from lmplay.base.runner_list import expose_runner

from .model import GPT2WithAuxLoss


@expose_runner(
    "gpt2ish_with_aux_loss",
    description="GPT2ish with auxiliary loss head: one more block predicts the token after the next.",
)
def runner_aux(*args, **kwargs):
    return BasicModelRunner(GPT2WithAuxLoss, *args, overrides=dict(), **kwargs)
