"""What does training the model cost, and does it fit into the device?"""

from __future__ import annotations

from lmplay.checks.devices import stray_tensor
from lmplay.checks.estimates import build_skeleton, count_parameters, estimate_flops, estimate_memory
from lmplay.checks.estimates.memory import free_memory, largest_mini_batch
from lmplay.checks.result import CheckResult, failed, passed
from lmplay.checks.subject import Subject


def check_cost(subject: Subject) -> CheckResult:
    """Parameters by part, FLOPs a token, memory, and the largest mini-batch that fits into the device now.

    A model that could not run on any device but the CPU is told so here.
    """
    if (stray := stray_tensor(subject)) is not None:
        return failed(
            f"on a GPU the forward pass would raise: {stray}",
            "a tensor that is made without device=x.device, as torch.arange(T), or one that the model keeps as a plain "
            "attribute, which .to(device) leaves behind: register_buffer moves with the model",
        )
    model = build_skeleton(subject.runner, **subject.settings)
    parameters, flops = count_parameters(model), estimate_flops(model)
    memory = estimate_memory(model, device_type=subject.device.type)
    parts = ", ".join(f"{name} {millions(count)}" for name, count in parameters.by_part.items() if count >= 10_000)
    free = free_memory(subject.device)
    fits = largest_mini_batch(model, free, device_type=subject.device.type)
    said = (
        f"{millions(parameters.total)} parameters ({parts}); {flops.forward / 1e6:.1f} MFLOP a token forward, "
        f"{flops.training / 1e6:.1f} in training; {gibibytes(memory.total)} for {memory.mini_batch_size} rows of "
        f"{memory.sequence_length}: weights {gibibytes(memory.weights)}, gradients {gibibytes(memory.gradients)}, "
        f"AdamW {gibibytes(memory.optimizer)}, activations "
        f"{gibibytes(memory.activations) if memory.activations is not None else 'unknown'}"
    )
    where = f"the {gibibytes(free)} free on {subject.device}"
    if fits is None:
        return passed(said)
    if fits < 1:
        return failed(
            f"{said}; not one row fits into {where}",
            "make the model or its max_len smaller, or train it on a larger device",
        )
    return passed(f"{said}; up to {fits} rows at once fit into {where}")


def millions(count: int) -> str:
    return f"{count / 1e6:.2f}M" if count >= 100_000 else f"{count / 1e3:.1f}k"


def gibibytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"
