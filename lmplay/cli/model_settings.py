"""`--set model.key=value` of the commands that build a model and train nothing: describe, check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lmplay.train.request import parse_assignments
from lmplay.utils.errors import WrongUsageError

SET_HELP = "A setting of the model, as model.num_blocks=2; repeatable."


def model_settings(assignments: Iterable[str]) -> dict[str, Any]:
    """`["model.num_blocks=2"]` -> `{"num_blocks": 2}`. Which keys there are, the runner knows."""
    tables = parse_assignments(assignments)
    for table in ("train", "data"):
        for key in tables[table]:
            raise WrongUsageError(f"--set {table}.{key}: nothing is trained here; only model.* settings count")
    return tables["model"]
