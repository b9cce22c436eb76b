"""The versions of the baseline without a causal mask."""

from lmplay.base.base_model import BasicModelRunner
from lmplay.base.runner_list import expose_runner

from .model import NonCausalGPT2


@expose_runner(
    "gpt2ish_noncausal",
    description="GPT2ish without the causal mask: it reads its targets, and shows what a leak looks like.",
)
def runner(*args, **kwargs):
    return BasicModelRunner(NonCausalGPT2, *args, overrides=dict(), **kwargs)
