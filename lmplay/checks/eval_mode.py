"""Is eval mode what its callers take it for? Nothing random, nothing written, and the mode stays as it is."""

from __future__ import annotations

import torch
from torch import nn

from lmplay.base.base_model import LMBase
from lmplay.checks.determinism import difference_of_passes
from lmplay.checks.result import CheckResult, failed, passed
from lmplay.checks.subject import Subject, generator_states, mode, seeded


def check_eval_mode(subject: Subject) -> CheckResult:
    """In eval mode two passes agree bit by bit, write nothing and draw nothing. No pass changes the mode."""
    model = subject.spread
    with mode(model, training=False):
        awake = [name for name, module in model.named_modules() if module.training]
    with torch.no_grad(), mode(model, training=True), seeded(subject.seed, subject.device):
        before = [name for name, module in model.named_modules() if module.training]
        model(subject.batch.tokens)
        lost = [name for name in before if not model.get_submodule(name).training]
    difference = difference_of_passes(subject)
    if awake:
        return failed(
            f"still in training mode after eval(): {', '.join(name or 'the model' for name in awake[:6])}",
            "train() is overridden, or a module sets self.training itself",
        )
    if lost:
        return failed(
            f"a pass in training mode leaves in eval mode: {', '.join(name or 'the model' for name in lost[:6])}",
            "forward() calls eval() or sets training, and dropout is off from the first step on; whoever calls decides",
        )
    written, drawn = traces_of_a_pass(subject)
    if written:
        return failed(
            f"a pass in eval mode changes {', '.join(written[:6])}",
            "forward() writes into weights or buffers: running statistics, a counter, a codebook; validating and "
            "generating would change the model, so write only under self.training",
        )
    if difference:
        return failed(
            f"two passes in eval mode differ by {difference:.2g}",
            "dropout that is always on, as F.dropout(x, p) without training=self.training; or state that a pass leaves "
            "behind",
        )
    if drawn:
        return failed(
            f"a pass in eval mode draws random numbers of {' and '.join(drawn)}, though its logits do not show it",
            "whoever validates more often would train with other dropout: draw only under self.training",
        )
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    return passed(f"two passes agree bit by bit and write nothing; {len(layers)} dropout layers are off")


def traces_of_a_pass(subject: Subject) -> tuple[list[str], list[str]]:
    """Names of what a checkpoint holds and a pass in eval mode has changed, and of the generators it has drawn from."""
    model = subject.spread
    with torch.no_grad(), mode(model, training=False), seeded(subject.seed, subject.device):
        state, randomness = fingerprints(model), generator_states()
        model(subject.batch.tokens)
        after, drawn = fingerprints(model), generator_states()
    written = [name for name, fingerprint in after.items() if str(state.get(name)) != str(fingerprint)]
    return written, [name for name, numbers in drawn.items() if numbers != randomness[name]]


def fingerprints(model: LMBase) -> dict[str, tuple[object, ...]]:
    """Shape and sums of each tensor in the state: a copy of all would take the memory of another model."""
    found: dict[str, tuple[object, ...]] = {}
    for name, tensor in model.state_dict().items():
        values = tensor.float()
        found[name] = (tuple(tensor.shape), float(values.sum()), float(torch.linalg.vector_norm(values)))
    return found
