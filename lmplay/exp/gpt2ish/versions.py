"""The versions of the baseline."""

from lmplay.base.base_model import BasicModelRunner
from lmplay.base.runner_list import expose_runner

from .model import GPT2


@expose_runner("gpt2ish", description="Reference model. Loosely based on GPT-2.")
def runner(*args, **kwargs):
    return BasicModelRunner(GPT2, *args, overrides=dict(), **kwargs)


@expose_runner("gpt2ish_med", description="Reference model, medium: 24 blocks, 1024 wide, 16 heads.")
def runner_med(*args, **kwargs):
    return BasicModelRunner(GPT2, *args, overrides=dict(num_blocks=24, embed_dim=1024, num_heads=16), **kwargs)


@expose_runner("gpt2ish_large", description="Reference model, large: 36 blocks, 1280 wide, 20 heads.")
def runner_large(*args, **kwargs):
    return BasicModelRunner(GPT2, *args, overrides=dict(num_blocks=36, embed_dim=1280, num_heads=20), **kwargs)


@expose_runner("gpt2ish_small", description="2-layer, 256-dim model for fast testing.")
def runner_small(*args, **kwargs):
    return BasicModelRunner(GPT2, *args, overrides=dict(num_blocks=2, embed_dim=256, num_heads=4), **kwargs)


@expose_runner("s_gpt2ish", description="Small and deep: 18 blocks, 288 wide, 6 heads.")
def runner_deep(*args, **kwargs):
    return BasicModelRunner(GPT2, *args, overrides=dict(num_blocks=18, embed_dim=288, num_heads=6), **kwargs)


@expose_runner("test_runner", description="Tiny model for quick tests: 2 blocks, 64 wide, 2 heads.")
def runner_tiny(*args, **kwargs):
    return BasicModelRunner(GPT2, *args, overrides=dict(num_blocks=2, embed_dim=64, num_heads=2), **kwargs)
