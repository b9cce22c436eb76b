"""What a model costs before it runs: parameters, FLOPs, memory. Everything here works on models without storage."""

from lmplay.checks.estimates.flops import Flops, estimate_flops
from lmplay.checks.estimates.layers import Layer, layer_table
from lmplay.checks.estimates.memory import Memory, estimate_memory
from lmplay.checks.estimates.parameters import Parameters, count_parameters
from lmplay.checks.estimates.skeleton import build_skeleton

__all__ = [
    "Flops",
    "Layer",
    "Memory",
    "Parameters",
    "build_skeleton",
    "count_parameters",
    "estimate_flops",
    "estimate_memory",
    "layer_table",
]
