"""All checks of one experiment, one by one, as they are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lmplay.checks.batch_independence import check_batch_independence
from lmplay.checks.cache import check_cache
from lmplay.checks.causality import check_causality
from lmplay.checks.compilation import check_compile
from lmplay.checks.contract import broken_contract, raised
from lmplay.checks.cost import check_cost
from lmplay.checks.determinism import check_determinism, why_incomparable
from lmplay.checks.eval_mode import check_eval_mode
from lmplay.checks.gradients import check_gradients
from lmplay.checks.initial_loss import check_initial_loss
from lmplay.checks.learning import check_learns
from lmplay.checks.precision import check_precision
from lmplay.checks.result import CheckResult, Gradient
from lmplay.checks.subject import Subject
from lmplay.utils.errors import WrongUsageError
from lmplay.utils.names import did_you_mean

CHECKS: dict[str, Callable[[Subject], CheckResult]] = {
    "gradients": check_gradients,
    "causality": check_causality,
    "cache": check_cache,
    "initial_loss": check_initial_loss,
    "batch_independence": check_batch_independence,
    "learns": check_learns,
    "determinism": check_determinism,
    "eval_mode": check_eval_mode,
    "precision": check_precision,
    "compile": check_compile,
    "cost": check_cost,
}
"""The names of the checks, in the order in which they run."""

COMPARING = ("causality", "cache", "batch_independence", "precision")
"""These hold passes in eval mode against each other, and say little of a model whose passes never agree."""


@dataclass
class Report:
    """The results so far; whole when `run_checks` is done."""

    experiment: str
    checks: list[CheckResult] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def gradients(self) -> tuple[Gradient, ...]:
        return next((check.gradients for check in self.checks if check.name == "gradients"), ())

    def to_dict(self) -> dict[str, Any]:
        """The shape of `check --json`."""
        return {
            "experiment": self.experiment,
            "ok": self.ok,
            "checks": [check.to_dict() for check in self.checks],
            "gradients": [gradient.to_dict() for gradient in self.gradients],
        }


def run_checks(
    subject: Subject, names: Iterable[str] | None = None, *, compile_backend: str = "aot_eager"
) -> Iterator[CheckResult]:
    """Each result as soon as it is known. `names` picks some of `CHECKS`; all of them when not given.

    A check that raises has failed. When not even a plain forward pass does what it should, that is said once and the
    rest is skipped.
    An unknown check or setting is a `WrongUsageError` of the call, before anything runs.
    """
    chosen = list(CHECKS) if names is None else list(names)
    for name in chosen:
        if name not in CHECKS:
            hint = did_you_mean(name, CHECKS) or f"; there are {', '.join(CHECKS)}"
            raise WrongUsageError(f"there is no check {name!r}{hint}")
    subject.runner.checked(subject.settings)
    return _results(subject, chosen, compile_backend)


def _results(subject: Subject, chosen: list[str], compile_backend: str) -> Iterator[CheckResult]:
    broken = broken_contract(subject)
    for position, name in enumerate(chosen):
        if broken is not None:
            yield broken.named(name) if position == 0 else not_asked(name)
            continue
        check = partial(check_compile, backend=compile_backend) if name == "compile" else CHECKS[name]
        started = time.perf_counter()
        try:
            result = check(subject)
        except Exception as error:  # noqa: BLE001 (a check runs other people's code: whatever it raises is an answer)
            result = raised(error)
        if not result.ok and name in COMPARING and (reason := why_incomparable(subject)) is not None:
            result = replace(result, cause=reason)
        yield result.named(name, time.perf_counter() - started)


def not_asked(name: str) -> CheckResult:
    return CheckResult(name=name, ok=False, skipped=True, evidence="not asked", cause="the forward pass fails")
