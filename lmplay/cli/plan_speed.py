"""How fast a plan will be trained, for `lmplay plans show`: as somebody says, as it was here before, or a guess."""

from __future__ import annotations

from dataclasses import dataclass

from lmplay.plans import Plan
from lmplay.runs.summary import RunSummary

USUAL_SHARE = 0.5
"""Share of the speed of matrix products that training reaches, about: `lmplay bench` measures it."""


@dataclass(frozen=True)
class Speed:
    """Tokens a second, padding and what is only read among them; `None` where nothing tells."""

    tokens_per_second: float | None
    source: str = ""


def expected_speed(experiment: str | None, typed: float | None, plan: Plan) -> Speed:
    """The typed one, that of the experiment's newest run on this machine, or what its arithmetic takes here."""
    if typed is not None:
        return Speed(typed, "as given")
    if experiment is None:
        return Speed(None)
    from lmplay.runs import summarize_all

    for run in sorted(summarize_all(), key=lambda run: -(run.created or 0.0)):
        speed = speed_of(run) if run.experiment == experiment else None
        if speed is not None:
            return Speed(speed, f"as in the run {run.name}")
    return _guess(experiment, plan)


def speed_of(run: RunSummary) -> float | None:
    """What a run has reached on the whole: the time of a row does not depend on how much of it is learned."""
    tokens = seconds = 0.0
    for stage in run.status.fields.get("by_stage") or ():
        settings = (f"{stage['name']}.train.sequence_length", "train.sequence_length", "model.max_len")
        length = next((run.config[key] for key in settings if isinstance(run.config.get(key), int)), 0)
        tokens += length * stage["samples"]
        seconds += stage["seconds"]
    return tokens / seconds if tokens and seconds else None


def _guess(experiment: str, plan: Plan) -> Speed:
    from lmplay.base.runner_list import get_runner
    from lmplay.checks.estimates import build_skeleton, estimate_flops
    from lmplay.train.bench import matrix_speed
    from lmplay.train.device import choose_device

    model = build_skeleton(get_runner(experiment))
    lengths = [stage.train.get("sequence_length") or model.max_len for stage in plan.stages]
    flops = estimate_flops(model, min(model.max_len, max(lengths))).training
    speed = USUAL_SHARE * matrix_speed(choose_device("auto"), "float32", times=2) / flops
    return Speed(speed, f"a guess from its arithmetic: no run of {experiment} here tells; lmplay bench measures it")
