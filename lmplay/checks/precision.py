"""Does mixed precision keep the result? Autocast's logits and loss against those of float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from lmplay.checks.difference import largest, spread_of
from lmplay.checks.result import CheckResult, failed, passed
from lmplay.checks.subject import Subject, cross_entropy, mode, seeded

LOGITS = 0.25
"""Of the spread of the logits, at nearly all positions: bfloat16 keeps 8 bits a number."""
FEW = 0.25
"""Share of the positions that may be further off."""
LOSS = 0.02


def check_precision(subject: Subject) -> CheckResult:
    """Under bfloat16 autocast the loss stays, and hardly a logit moves by more than a quarter of their spread."""
    model, batch = subject.model, subject.batch
    with torch.no_grad(), mode(model, training=False):
        with seeded(subject.seed, subject.device):
            exact = model(batch.tokens)
        try:
            with seeded(subject.seed, subject.device), torch.autocast(subject.device.type, dtype=torch.bfloat16):
                rounded = model(batch.tokens)
        except RuntimeError as error:
            return failed(
                f"under bfloat16 autocast the forward pass raises: {' '.join(str(error).split())[:300]}",
                "a tensor that was made in float32 meets one that autocast has made bfloat16: make it in the other's "
                "type, or bring that one to its own with .to(y.dtype)",
            )
        losses = [float(cross_entropy(logits, batch.targets)) for logits in (exact, rounded)]
        beyond = beyond_float16(subject)
    moved, spread = largest(rounded, exact), spread_of(exact)
    # (B, T): a token whose choice of an expert falls otherwise may be far off, without harm to the rest.
    positions = (rounded.float() - exact.float()).abs().amax(-1)
    far = (positions > LOGITS * spread).float().mean().item()
    said = (
        f"bfloat16 autocast: loss {losses[1]:.4f} for {losses[0]:.4f}, "
        f"logits within {moved / spread:.1%} of their spread"
    )
    if 0 < far <= FEW:
        typical = float(positions.median()) / spread
        said += f" at the worst position, {typical:.1%} at the median: a close choice, as of an expert, fell otherwise"
    if not torch.isfinite(rounded).all():
        return failed(
            said, "a value leaves the range or the precision of bfloat16: a large negative fill, a tiny epsilon"
        )
    if far > FEW or abs(losses[1] - losses[0]) > LOSS * max(1.0, abs(losses[0])):
        return failed(
            said,
            "a step needs float32 and runs in bfloat16: a long sum, positions, a softmax outside of torch's own "
            "functions, or what a choice is made from (top-k, argmax, sign); wrap it in torch.autocast(..., "
            "enabled=False)",
        )
    if beyond and subject.runner.train_preset.get("precision") == "fp16":
        return failed(
            f"{said}; {beyond}",
            "the version trains with train.precision=fp16, whose largest number is 65,504: use bf16, or normalise "
            "before that product",
        )
    return passed(f"{said}; {beyond}: train in bf16 or float32" if beyond else said)


def beyond_float16(subject: Subject) -> str | None:
    """The matrix product, with the module that it is in, whose float32 result is larger than float16 can hold."""
    modules = ModuleTracker()
    products = _Products(modules)
    with seeded(subject.seed, subject.device), mode(subject.model, training=False), modules, products:
        subject.model(subject.batch.tokens)
    place, size = max(products.largest.items(), key=lambda item: item[1], default=("", 0.0))
    if size <= torch.finfo(torch.float16).max:
        return None
    return f"float16 would overflow at {size:.3g} in {place or 'the model'}"


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest number that each module's matrix products give; autocast rounds no other results."""

    KINDS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention_for_cpu")

    def __init__(self, modules: ModuleTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest: dict[str, float] = {}
        self.modules = modules

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in self.KINDS:
            result = answer[0] if isinstance(answer, tuple) else answer
            # The innermost module has the longest name; the names begin with that of the model's class.
            inside = max(self.modules.parents - {"Global"}, key=len, default="").partition(".")[2]
            size = max(abs(float(end)) for end in result.detach().aminmax()) if result.numel() else 0.0
            self.largest[inside] = max(self.largest.get(inside, 0.0), size)
        return answer
