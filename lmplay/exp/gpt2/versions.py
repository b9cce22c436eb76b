"""The versions of published GPT-2."""

from lmplay.base.base_model import BasicModelRunner
from lmplay.base.runner_list import expose_runner

from .model import PublishedGPT2


@expose_runner("gpt2", description="GPT-2 as published: tanh GELU, tied output, 12 blocks. What import makes.")
def runner(*args, **kwargs):
    return BasicModelRunner(PublishedGPT2, *args, overrides=dict(), **kwargs)
