"""What a check answers. Plain data: printed by the command, sent as JSON to the workbench."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

GradientStatus = Literal["ok", "none", "zero", "nan", "tiny", "huge"]


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """The gradient of one parameter after a real backward pass."""

    name: str
    shape: tuple[int, ...]
    frozen: bool
    status: GradientStatus
    grad_norm: float | None
    ratio: float | None
    """Norm of the gradient over the norm of the weights; None for weights that are all zero."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shape": list(self.shape),
            "status": self.status,
            "grad_norm": self.grad_norm,
            "frozen": self.frozen,
            "ratio": self.ratio,
        }


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One verdict. `evidence` is what was measured; `cause` is the likely reason of a failure, or of a skip."""

    name: str
    ok: bool
    evidence: str
    cause: str = ""
    skipped: bool = False
    gradients: tuple[Gradient, ...] = ()
    """Of the check `gradients` only."""
    seconds: float = 0.0
    """How long it took."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ok": self.ok,
            "skipped": self.skipped,
            "evidence": self.evidence,
            "cause": self.cause,
            "seconds": round(self.seconds, 3),
        }

    def named(self, name: str, seconds: float = 0.0) -> CheckResult:
        return replace(self, name=name, seconds=seconds)


def passed(evidence: str, **more: Any) -> CheckResult:
    return CheckResult(name="", ok=True, evidence=evidence, **more)


def failed(evidence: str, cause: str, **more: Any) -> CheckResult:
    return CheckResult(name="", ok=False, evidence=evidence, cause=cause, **more)


def skipped(evidence: str, cause: str = "") -> CheckResult:
    return CheckResult(name="", ok=True, skipped=True, evidence=evidence, cause=cause)
