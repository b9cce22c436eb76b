"""`--set model.key=value` of the commands that build a model and train nothing: describe, check."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lmplay.utils.errors import WrongUsageError

SET_HELP = "A setting of the model, as model.num_blocks=2; repeatable."


def model_settings(assignments: Iterable[str]) -> dict[str, Any]:
    """`["model.num_blocks=2"]` -> `{"num_blocks": 2}`. Which keys there are, the runner knows."""
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        table, _, name = key.strip().partition(".")
        if not equals or table != "model" or not name:
            raise WrongUsageError(f"--set {assignment}: give it as model.key=value, for example model.num_blocks=2")
        spelled = {"None": None, "True": True, "False": False}
        try:
            settings[name] = spelled[text.strip()] if text.strip() in spelled else json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text.strip()
    return settings
