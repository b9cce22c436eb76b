"""From a plan entry to the exact batch: source -> tokens -> shards -> order -> packed rows. numpy, never torch.

Called by `lmplay.train`, `lmplay.checks` and the `lmplay data` commands.
"""

from lmplay.data.batch import IGNORED, Batch
from lmplay.data.stage import StageData, ValidationData, open_stage, open_validation

__all__ = ["IGNORED", "Batch", "StageData", "ValidationData", "open_stage", "open_validation"]
