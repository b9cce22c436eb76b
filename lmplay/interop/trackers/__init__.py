"""TensorBoard, Weights & Biases and Trackio, by `lmplay run --track NAME`: optional, and never in the way of a run.

A tracker is fed by a process of its own that follows the run directory, as any reader does. Its failure is its own: the
worker neither knows of it nor waits for it, and the run directory stays the source.
"""

from lmplay.interop.trackers.names import TRACKERS, check_trackers, spawn_bridges

__all__ = ["TRACKERS", "check_trackers", "spawn_bridges"]
