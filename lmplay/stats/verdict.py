"""What a comparison means, in words that promise no more than the seeds allow."""

from __future__ import annotations

from collections.abc import Sized

from lmplay.stats.standing import Group, Standing

_ALIKE = 0.02  # costs within 2% of each other are called equal


def verdict_of(standing: Standing, base: Group, group: Group) -> str:
    """One or two sentences about a group against the baseline."""
    name, reference = standing.name, base.name
    if standing.diverged:
        return f"{name} has diverged: it is no improvement over {reference} as it is."
    if any(run.diverged for run in base.runs):
        return f"{reference} has diverged: there is nothing to hold {name} against."
    if standing.difference is None:
        return f"{name} and {reference} have no validation at a common place."
    size = f"{abs(standing.difference):.4f} nats"
    direction = "lower" if standing.difference < 0 else "higher"
    if standing.interval is None or standing.p_value is None:
        found = f"a validation loss {size} {direction} than" if abs(standing.difference) >= 5e-5 else "the loss of"
        said = (
            f"{name} has {found} {reference}, with one seed each: whether that is "
            "more than chance can't be told. Repeat both with at least three seeds."
        )
    else:
        low, high = standing.interval
        seeds = _seeds(base.runs, group.runs, standing)
        evidence = f"(95% interval {low:+.4f} to {high:+.4f}, p {_p(standing.p_value)}, {seeds})"
        if standing.p_value < 0.05:
            judged = "better" if standing.difference < 0 else "worse"
            said = f"{name} is {judged} than {reference}: its validation loss is {size} {direction} {evidence}."
        else:
            said = f"{name} can't be told from {reference}: a difference of {size} is within the noise {evidence}."
            if standing.seeds_needed is not None:
                said += f" If it is real, {standing.seeds_needed} seeds each would show it."
    return f"{said}{_about_cost(standing, base)}"


def verdict_alone(standing: Standing) -> str:
    """What can be said of one group that is held against nothing."""
    if standing.validation_loss is None:
        return f"{standing.name} has diverged."
    spread = "" if standing.deviation is None else f" ± {standing.deviation:.4f} over {standing.seeds} seeds"
    return (
        f"{standing.name} has a validation loss of {standing.validation_loss:.4f}{spread}: name another run or group "
        "to hold against it."
    )


def _seeds(base: Sized, ours: Sized, standing: Standing) -> str:
    if standing.test == "paired":
        return f"{min(len(base), len(ours))} matched seeds"
    return f"{len(ours)} against {len(base)} seeds"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _about_cost(standing: Standing, base: Group) -> str:
    """A bigger model is not a better idea: say what the difference was bought with."""
    reference = base.runs[0]
    parts = []
    for what, ours, theirs in (
        ("parameters", standing.parameters, reference.parameters),
        ("FLOPs a token", standing.flops_per_token, reference.flops_per_token),
    ):
        if ours and theirs and abs(ours / theirs - 1) > _ALIKE:
            parts.append(f"{ours / theirs:.2f} times the {what}")
    if not parts:
        return ""
    said = f" It has {' and '.join(parts)}"
    at_equal = standing.difference_at_equal_flops
    if at_equal is not None and len(parts) and "FLOPs" in parts[-1]:
        direction = "lower" if at_equal < 0 else "higher"
        return f"{said}; at equal FLOPs its loss is {abs(at_equal):.4f} nats {direction}."
    return f"{said}."
