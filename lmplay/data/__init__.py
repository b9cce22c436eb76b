"""From a plan entry to the exact batch: source -> tokens -> shards -> order -> packed rows. numpy, never torch.

Called by `lmplay.train`, `lmplay.checks` and the `lmplay data` commands.
"""

from lmplay.data.batch import IGNORED, Batch, Progress
from lmplay.data.rows.prefetch import prefetch
from lmplay.data.rows.stage import StageData, open_stage
from lmplay.data.rows.validation import ValidationData, open_validation

__all__ = [
    "IGNORED",
    "Batch",
    "Progress",
    "StageData",
    "ValidationData",
    "open_stage",
    "open_validation",
    "prefetch",
]
